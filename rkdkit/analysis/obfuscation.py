"""Is a network robust, or are only its gradients of no use? (Athalye et al. 2018; PeerAiD Table 7)."""

import math
from dataclasses import replace

from rkdkit import attacks, autoattack

FEW, MANY = 10, 1000


def obfuscation_attacks(usual: attacks.PGD) -> dict[str, attacks.Attack | None]:
    """Return the attacks of Athalye et al.'s tests (2018, section 3.1), as PeerAiD's section 4.7 has them.

    The unbounded attack may change every pixel to anything. It starts from the image, since a start anywhere in its
    ball would be noise, and takes as many steps as the longest bounded one.

    Parameters
    ----------
    usual : the attack that measures robust accuracy; the others have its radius and its step, and the same iterate
        decides.

    Returns
    -------
    By metric: one step ("fgsm"), ten steps, those of `usual`, a thousand, a black-box attack ("square") and the
    unbounded attack ("unbounded").
    """
    iterated = [replace(usual, steps=steps) for steps in sorted({FEW, usual.steps, MANY})]
    return {
        "fgsm": attacks.FGSM(usual.eps),
        **{str(attack).lower(): attack for attack in iterated},
        "square": autoattack.Square(usual.eps),
        "unbounded": replace(usual, eps=math.inf, steps=MANY, start="none"),
    }
