"""Pictures as PNG, and bars and curves as SVG, made without a plotting library: each takes about a millisecond."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import torch
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from rkdkit.explore.answers import Seen
from rkdkit.figures.look import COLOURS

DASHES = ("", "6 3", "2 3", "9 3 2 3")
"""The lines of several networks of one colour."""

MOST_CLASSES = 10
"""How many classes have bars; of more, those with the highest probabilities and the true one."""

_POINT_SIZE = 41
_PIXELS = 118

STYLE = f"""
.rkdkit-row {{ display: flex; flex-wrap: wrap; gap: 10px; align-items: flex-start; }}
.rkdkit-row figure {{ margin: 0; }}
.rkdkit-row img {{ width: {_PIXELS}px; height: {_PIXELS}px; image-rendering: pixelated; border: 1px solid #888; }}
.rkdkit-row figcaption {{ width: {_PIXELS}px; font-size: 12px; line-height: 1.3; min-height: 3.9em; }}
.rkdkit-shown svg {{ max-width: 100%; height: auto; }}
.rkdkit-shown svg text {{ fill: currentColor; font-size: 10px; }}
.rkdkit-shown table {{ margin: 6px 0; border-collapse: collapse; font-size: 12px; line-height: 1.5; }}
.rkdkit-shown th, .rkdkit-shown td {{ text-align: left; padding: 1px 8px 1px 0; font-weight: normal; }}
.rkdkit-shown td {{ white-space: nowrap; }}
@media (max-width: 700px) {{ .rkdkit-shown td {{ white-space: normal; }} }}
.rkdkit-shown p {{ margin: 4px 0; line-height: 1.35; font-size: 12px; }}
.rkdkit-problem {{ border-left: 4px solid #d55e00; padding-left: 6px; white-space: pre-line; line-height: 1.4; }}
.rkdkit-key {{ display: inline-block; width: 22px; height: 0; vertical-align: middle; margin-right: 4px; }}
.rkdkit-button.jupyter-button {{ background-size: 100% 100%; image-rendering: pixelated; padding: 0; }}
.rkdkit-button.jupyter-button:focus-visible {{ outline: 3px solid #0173b2; }}
"""
"""The rules that all parts of an explorer share."""


def colour(kind: str) -> str:
    """Return the colour of a kind of network in all exhibits: "#029e73" of "student"."""
    return str(to_hex(COLOURS[kind]))


def png(image: Tensor) -> bytes:
    """Return an image as the bytes of a PNG file, a pixel for a pixel.

    Parameters
    ----------
    image : (C, H, W) floating point in [0, 1]. Of one channel it is grey, of three coloured; an image of one pixel and
        two channels is a point of the plane and is drawn as a dot, its second coordinate upwards.
    """
    if image.shape == (2, 1, 1):
        image = _dot(*image.flatten().tolist())
    elif len(image) not in (1, 3):
        image = image.mean(0, keepdim=True)
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).expand(-1, -1, 3)
    file = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(file, "PNG")
    return file.getvalue()


def _dot(x: float, y: float) -> Tensor:
    last = _POINT_SIZE - 1
    image = torch.ones(1, _POINT_SIZE, _POINT_SIZE)
    row, column = last - round(y * last), round(x * last)
    image[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0
    return image


def as_uri(image: Tensor) -> str:
    """Return an image as an address that holds its PNG; `image` as in :func:`png`."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def difference(image: Tensor, other: Tensor, eps: float) -> Tensor:
    """Return `other` minus `image` as an image: black is -eps, mid-grey 0, white +eps.

    Parameters
    ----------
    image, other : (C, H, W), at most `eps` apart at each pixel.
    eps : the radius of the attack; 0: all is mid-grey.
    """
    if eps == 0:
        return torch.full_like(image, 0.5)
    return (0.5 + (other - image) / (2 * eps)).clamp(0, 1)


def pictures(seen: Seen, step: int) -> str:
    """Return x, the image after so many steps of the attack, and their difference, as HTML."""
    now, name = seen.iterates[step], step_name(step, len(seen.iterates) - 1)
    largest = float((now - seen.image).abs().max())
    if seen.eps:
        scaled = f"difference, {1 / (2 * seen.eps):.3g} times as strong: black -{seen.eps:.3g}, white +{seen.eps:.3g}"
    else:
        scaled = "difference: none, as eps is 0"
    parts = (
        (seen.image, "x, the image itself", "the image itself"),
        (now, f"{name}; changed by at most {largest:.3g}", f"the image under attack: {name}"),
        (difference(seen.image, now, seen.eps), scaled, "what the attack changed"),
    )
    figures = (
        f'<figure><img src="{as_uri(image)}" alt="{escape(alt)}"/><figcaption>{escape(caption)}</figcaption></figure>'
        for image, caption, alt in parts
    )
    return f'<div class="rkdkit-row">{"".join(figures)}</div>'


def step_name(step: int, steps: int) -> str:
    """Return what an iterate is called: "the attack's random start", "after step 3 of 20", "x*, after all 20 steps"."""
    if step == 0:
        return "the attack's random start"
    return f"x*, after all {steps} steps" if step == steps else f"after step {step} of {steps}"


def verdicts(seen: Seen, classes: Sequence[str], step: int) -> str:
    """Return a table of what each network answers to x and to the image after a step, as HTML."""
    rows = []
    for name in seen.logits:
        cells = "".join(f"<td>{_answer(seen.probabilities(name, at), classes, seen.label)}</td>" for at in (None, step))
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    head = f"<tr><th>true class: {escape(classes[seen.label])}</th><th>to x</th>"
    return f"<table>{head}<th>{step_name(step, len(seen.iterates) - 1)}</th></tr>{''.join(rows)}</table>"


def _answer(probabilities: Tensor, classes: Sequence[str], label: int) -> str:
    top = int(probabilities.argmax())
    mark = "\N{CHECK MARK} right" if top == label else "\N{BALLOT X} wrong"
    return f"{escape(classes[top])} ({100 * float(probabilities[top]):.0f} %) {mark}"


def all_bars(seen: Seen, classes: Sequence[str], step: int) -> str:
    """Return the bars of all networks that answered, as HTML."""
    shown = classes_with_bars([seen.probabilities(name, at) for name in seen.logits for at in (None, step)], seen.label)
    drawn = (
        bars(
            name,
            colour(seen.kinds[name]),
            {classes[i]: (float(seen.probabilities(name)[i]), float(seen.probabilities(name, step)[i])) for i in shown},
            classes[seen.label],
        )
        for name in seen.logits
    )
    key = "Upper bars: answers to x; lower bars: to the attacked image. The true class is bold."
    return f'<div class="rkdkit-row">{"".join(drawn)}</div><p>{key}</p>'


def classes_with_bars(answers: Sequence[Tensor], label: int, most: int = MOST_CLASSES) -> list[int]:
    """Return which classes have bars: all, or those with the highest probabilities and the true one, in order.

    Parameters
    ----------
    answers : (classes,) probabilities, of several networks and images; at least one.
    label : the true class.
    most : how many classes at most.
    """
    highest = torch.stack(list(answers)).amax(0)
    highest[label] = 2  # above every probability
    return sorted(highest.topk(min(most, len(highest))).indices.tolist())


def bars(title: str, fill: str, rows: Mapping[str, tuple[float, float]], true: str) -> str:
    """Return two bars for each class as SVG: the probability for x above that for the attacked image.

    Parameters
    ----------
    title : the network.
    fill : the colour.
    rows : the two probabilities, by class.
    true : the true class, whose name is bold.
    """
    left, wide, high = 60, 100, 21
    parts = []
    for place, (name, (natural, attacked)) in enumerate(rows.items()):
        y = 18 + high * place
        weight = ' font-weight="bold"' if name == true else ""
        short = name if len(name) <= 10 else f"{name[:9]}…"
        parts.append(f'<text x="{left - 4}" y="{y + 12}" text-anchor="end"{weight}>{escape(short)}</text>')
        for value, down, opacity in ((natural, 0, 0.45), (attacked, 9, 1)):
            parts.append(
                f'<rect x="{left}" y="{y + down}" width="{max(wide * value, 0.5):.1f}" height="8" fill="{fill}" '
                f'fill-opacity="{opacity}"/>'
                f'<text x="{left + wide * value + 3:.1f}" y="{y + down + 8}">{100 * value:.0f}</text>'
            )
    values = "; ".join(f"{name}: {100 * n:.0f} and {100 * a:.0f} %" for name, (n, a) in rows.items())
    size = f'width="{left + wide + 24}" height="{20 + high * len(rows)}"'
    head = f'<svg {size} role="img" aria-label="{escape(f"{title}, to x and to the attacked image: {values}")}">'
    short = title if len(title) <= 30 else f"{title[:29]}…"
    return f'{head}<text x="0" y="10" font-weight="bold">{escape(short)}</text>{"".join(parts)}</svg>'


@dataclass(frozen=True)
class Line:
    """A line of a drawn curve.

    Attributes
    ----------
    name : for the key.
    colour : such as "#029e73".
    x, y : the points, of equal number; there may be none yet.
    dash : its dashes, of `DASHES`.
    """

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    dash: str = ""


def step_lines(seen: Seen, quantity: str) -> list[Line]:
    """Return a line for each network: a quantity of its answers over the steps of the attack."""
    lines, used = list[Line](), list[str]()
    for name in seen.logits:
        kind = seen.kinds[name]
        dash = DASHES[used.count(kind) % len(DASHES)]
        used.append(kind)
        lines.append(Line(name, colour(kind), range(len(seen.iterates)), seen.curve(name, quantity), dash))
    return lines


def curves(title: str, lines: Iterable[Line], at: float, ends: tuple[float, float], *, share: bool) -> str:
    """Return lines over steps or epochs, with a mark at the place that is shown, as SVG with a key.

    Parameters
    ----------
    title : what is drawn over what.
    lines : the lines.
    at : where the mark is.
    ends : the first and the last place.
    share : whether the values are in [0, 1]; otherwise the axis goes from 0 to the highest value.
    """
    drawn = list(lines)
    width, height, left, top, low = 390, 128, 34, 20, 110
    highest = 1.0 if share else max([1.0, *(y for line in drawn for y in line.y)])
    first, last = ends
    span = max(last - first, 1)

    def across(x: float) -> float:
        return left + (width - left - 12) * (x - first) / span

    def down(y: float) -> float:
        return low - (low - top) * min(y / highest, 1)

    parts = [
        f'<line x1="{left}" x2="{width - 12}" y1="{down(y):.1f}" y2="{down(y):.1f}" stroke="currentColor" '
        f'stroke-opacity="0.25"/><text x="{left - 4}" y="{down(y) + 3:.1f}" text-anchor="end">{y:.3g}</text>'
        for y in (0, highest / 2, highest)
    ]
    parts += [
        f'<text x="{across(x):.1f}" y="{low + 13}" text-anchor="middle">{x:g}</text>' for x in dict.fromkeys(ends)
    ]
    parts.append(
        f'<line x1="{across(at):.1f}" x2="{across(at):.1f}" y1="{top}" y2="{low}" stroke="currentColor" '
        'stroke-dasharray="1 2"/>'
    )
    said = []
    for line in drawn:
        places = [(across(x), down(y)) for x, y in zip(line.x, line.y, strict=True)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        look = f'fill="none" stroke="{line.colour}" stroke-width="2" stroke-dasharray="{line.dash}"'
        parts.append(f'<polyline points="{points}" {look}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{line.colour}"/>' for x, y in places]
        if line.y:
            said.append(f"{line.name}: from {line.y[0]:.3g} to {line.y[-1]:.3g}")
    head = f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label='
    label = f'"{escape(f"{title}. " + "; ".join(said))}">'
    titled = f'<text x="0" y="10" font-weight="bold">{escape(title)}</text>'
    return f"{head}{label}{titled}{''.join(parts)}</svg>{_key(drawn)}"


def _key(lines: Iterable[Line]) -> str:
    styles = {"": "solid", DASHES[1]: "dashed"}
    names = (
        f'<span><span class="rkdkit-key" style="border-top: 3px {styles.get(line.dash, "dotted")} {line.colour}">'
        f"</span>{escape(line.name)}</span>"
        for line in lines
    )
    return f'<p class="rkdkit-row">{"".join(names)}</p>'


def problem(text: str) -> str:
    """Return a line about what cannot be shown, as HTML."""
    return f'<p class="rkdkit-problem" role="note">{escape(text)}</p>'


def grid_style(token: str, images: Sequence[Tensor]) -> str:
    """Return the rules that give each button of a grid its image; its class is `<token>-<place>`."""
    rules = (
        f".{token}-{place}.jupyter-button {{ background-image: url({as_uri(image)}); }}"
        for place, image in enumerate(images)
    )
    return f"<style>{' '.join(rules)}</style>"


def mark_style(token: str, chosen: int | None, wrong: Iterable[int]) -> str:
    """Return the rules that mark buttons of a grid: the chosen one, and those whose image a network mistakes."""
    marked = [f".{token}-{place}.jupyter-button {{ border: 3px dashed #d55e00; }}" for place in wrong]
    if chosen is not None:
        marked.append(f".{token}-{chosen}.jupyter-button {{ outline: 3px solid #0173b2; outline-offset: 1px; }}")
    return f"<style>{' '.join(marked)}</style>"
