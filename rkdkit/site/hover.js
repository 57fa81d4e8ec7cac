// Shows the image of a point beside it, for the pointer and for the keyboard: left and right go from point to point,
// up and down move the slider, if there is one.
(() => {
  "use strict";
  const SIZE = 72; // pixels
  const GAP = 14;

  const shownPoints = (div) =>
    div.data.flatMap((trace, curveNumber) =>
      trace.meta !== "images" || (trace.visible ?? true) !== true
        ? []
        : trace.x.map((_, pointNumber) => ({ curveNumber, pointNumber })),
    );

  // the label that plotly draws is on one side of the point; the image goes to the other
  const sideOf = (div, x) => {
    const label = div.querySelector(".hoverlayer .hovertext")?.getBoundingClientRect();
    const labelIsRight = !label || label.left + label.width / 2 > div.getBoundingClientRect().left + x;
    return labelIsRight ? x - GAP - SIZE : x + GAP;
  };

  const step = (div, by) => {
    const slider = div.layout.sliders?.[0];
    if (!slider) return;
    const next = Math.min(Math.max((slider.active ?? 0) + by, 0), slider.steps.length - 1);
    Plotly.relayout(div, { "sliders[0].active": next });
    Plotly.animate(div, ...slider.steps[next].args);
  };

  document.addEventListener("rkdkit:drawn", ({ target: div }) => {
    const images = div.layout.meta?.images ?? [];
    if (!images.length) return;

    const image = Object.assign(document.createElement("img"), { width: SIZE, height: SIZE, hidden: true, alt: "" });
    Object.assign(image.style, {
      position: "absolute",
      imageRendering: "pixelated",
      pointerEvents: "none",
      zIndex: 10,
      border: "1px solid #8a8a8a",
      margin: 0,
    });
    image.className = "rkdkit-thumbnail";
    const said = document.createElement("span"); // what a screen reader says of the point
    said.setAttribute("role", "status");
    Object.assign(said.style, { position: "absolute", width: "1px", height: "1px", overflow: "hidden", clipPath: "inset(50%)" });
    div.append(image, said);
    div.tabIndex = 0;

    div.on("plotly_hover", ({ points: [point] }) => {
      if (point.data.meta !== "images") return;
      const [index, about] = point.customdata;
      const x = point.xaxis._offset + point.xaxis.d2p(point.x);
      const y = point.yaxis._offset + point.yaxis.d2p(point.y);
      image.src = images[index];
      image.alt = about;
      said.textContent = about;
      image.style.left = `${Math.min(Math.max(sideOf(div, x), 0), div.clientWidth - SIZE)}px`;
      image.style.top = `${Math.max(y - SIZE / 2, 0)}px`;
      image.hidden = false;
    });
    const hide = () => {
      image.hidden = true;
    };
    div.on("plotly_unhover", hide);
    div.addEventListener("blur", hide);

    let at = -1;
    div.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const steps = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (event.target !== div || event.ctrlKey || event.altKey || event.metaKey) return;
      if (steps && div.layout.sliders?.length) {
        event.preventDefault();
        step(div, steps);
      } else if (moves) {
        event.preventDefault();
        const points = shownPoints(div);
        at = (at + moves + points.length) % points.length;
        Plotly.Fx.hover(div, [points[at]]);
      }
    });
  });
})();
