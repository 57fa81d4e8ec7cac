"""When does knowledge distillation improve robustness? (TMLR submission): its Figures 6, 7 and 10 to 17."""

from typing import NamedTuple

from rkdkit.analysis.trajectories import BY_IMAGE, Answers, Trajectories
from rkdkit.claims import Claim, Quantity

TEACHERS = ("PGD-AT", "Natural")
"""The methods of the two fixed teachers."""

EASY, HARD = "easiest third", "hardest third"


class _Values(NamedTuple):
    """What is compared, and its name."""

    name: str
    by_image: BY_IMAGE


def trajectory_claims(measured: Trajectories) -> list[Claim]:
    """Check what the paper says of its Figures 6, 7 and 10 to 17 (sections C.2 and E).

    "Easy" and "hard" have no number in the paper; here they are the easiest and the hardest third of the images. Where
    several shares of the teacher's answers were tried, the smallest stands for label mixing.
    """
    robust, natural = measured.answers["PGD-AT"], measured.answers["Natural"]
    return [
        *_similar_where_easy(measured, "PGD-AT", "Figure 6"),
        _paired(
            measured,
            "Trajectories on hard images differ more when these are adversarial (PGD-AT teacher).",
            "Figure 6",
            _Values("cosine, natural images", robust["natural"].cosine),
            _Values("cosine, adversarial images", robust["adversarial"].cosine),
            HARD,
        ),
        _gains(measured, "PGD-AT", "adversarial", "Figure 7", HARD),
        _loses(measured, "PGD-AT", "adversarial", "Figure 7"),
        _paired(
            measured,
            "On hard images AKD gains more where these are adversarial (PGD-AT teacher).",
            "Figures 7 and 10",
            _Values("p_S,K - p_T,K, adversarial images", robust["adversarial"].gain(robust["adversarial"].plain)),
            _Values("p_S,K - p_T,K, natural images", robust["natural"].gain(robust["natural"].plain)),
            HARD,
        ),
        _early_stopping_lowers(measured, "PGD-AT", "Figure 11a", "all"),
        *_mixing(measured, "PGD-AT", "Figure 12"),
        *_similar_where_easy(measured, "Natural", "Figure 13"),
        _gains(measured, "Natural", "natural", "Figure 14", HARD),
        _loses(measured, "Natural", "natural", "Figure 14"),
        _gains(measured, "Natural", "adversarial", "Figure 15", "all"),
        _early_stopping_lowers(measured, "Natural", "Figure 16a", HARD),
        _paired(
            measured,
            "A Natural teacher that was stopped early makes the student better on easy adversarial images.",
            "Figure 16b",
            _Values("p_S,K, teacher stopped early", natural["adversarial"].early),
            _Values("p_S,K, teacher at its end", natural["adversarial"].plain),
            EASY,
        ),
        *_mixing(measured, "Natural", "Figure 17"),
    ]


def _paired(measured: Trajectories, text: str, where: str, higher: _Values, lower: _Values, part: str) -> Claim:
    """Compare two values of the same images."""
    return Claim(
        text,
        f"RKD, {where}",
        _quantity(measured, higher, part),
        _quantity(measured, lower, part),
        measured.minus(higher.by_image, lower.by_image, part),
    )


def _between(measured: Trajectories, text: str, where: str, values: _Values, higher: str, lower: str) -> Claim:
    """Compare two parts of the images."""
    return Claim(
        text,
        f"RKD, {where}",
        _quantity(measured, values, higher),
        _quantity(measured, values, lower),
        measured.between(values.by_image, higher, lower),
    )


def _quantity(measured: Trajectories, values: _Values, part: str) -> Quantity:
    words = "all images" if part == "all" else part
    return Quantity(f"{values.name}, {words}", measured.mean(values.by_image, part))


def _similar_where_easy(measured: Trajectories, teacher: str, where: str) -> list[Claim]:
    return [
        _between(
            measured,
            f"Student and {teacher} teacher develop more alike on easy {images} images than on hard ones.",
            where,
            _Values("cosine", answers.cosine),
            EASY,
            HARD,
        )
        for images, answers in measured.answers[teacher].items()
    ]


def _probabilities(answers: Answers) -> tuple[_Values, _Values]:
    return _Values("p_S,K", answers.plain), _Values("p_T,K", answers.teacher)


def _gains(measured: Trajectories, teacher: str, images: str, where: str, part: str) -> Claim:
    which = "" if part == "all" else "hard "
    text = f"On {which}{images} images the student is surer of the correct class than its {teacher} teacher."
    return _paired(measured, text, where, *_probabilities(measured.answers[teacher][images]), part)


def _loses(measured: Trajectories, teacher: str, images: str, where: str) -> Claim:
    text = f"On easy {images} images the student is less sure of the correct class than its {teacher} teacher."
    student, guide = _probabilities(measured.answers[teacher][images])
    return _paired(measured, text, where, guide, student, EASY)


def _early_stopping_lowers(measured: Trajectories, teacher: str, where: str, part: str) -> Claim:
    which = "" if part == "all" else "hard "
    answers = measured.answers[teacher]["natural"]
    return _paired(
        measured,
        f"A {teacher} teacher that was stopped early makes the student worse on {which}natural images.",
        where,
        _Values("p_S,K, teacher at its end", answers.plain),
        _Values("p_S,K, teacher stopped early", answers.early),
        part,
    )


def _mixing(measured: Trajectories, teacher: str, where: str) -> list[Claim]:
    found = []
    for images, answers in measured.answers[teacher].items():
        alpha = min(answers.mixed)
        mixed = answers.mixed[alpha]
        helped = [with_labels - without for with_labels, without in zip(mixed, answers.plain, strict=True)]
        found += [
            _paired(
                measured,
                f"Mixing labels in makes the student better on {images} images ({teacher} teacher).",
                where,
                _Values(f"p_S,K, alpha {alpha:g}", mixed),
                _Values("p_S,K, alpha 1", answers.plain),
                "all",
            ),
            _between(
                measured,
                f"Mixing labels in does more for hard {images} images than for easy ones ({teacher} teacher).",
                where,
                _Values(f"p_S,K at alpha {alpha:g} minus p_S,K at alpha 1", helped),
                HARD,
                EASY,
            ),
        ]
    return found
