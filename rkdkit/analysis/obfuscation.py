"""Is a network robust, or are only its gradients of no use? (Athalye et al. 2018; PeerAiD Table 7)."""

import math

from rkdkit import attacks, autoattack

FEW, MANY = 10, 1000


def obfuscation_attacks(usual: attacks.PGD) -> dict[str, attacks.Attack | None]:
    """Return the attacks of Athalye et al.'s tests (2018, section 3.1), as PeerAiD's section 4.7 has them.

    The unbounded attack may change every pixel to anything. It starts from the image, since a start anywhere in its
    ball would be noise, and takes as many steps as the longest bounded one.

    Parameters
    ----------
    usual : the attack that measures robust accuracy; the others have its radius and its step.

    Returns
    -------
    By metric: one step ("fgsm"), ten steps, those of `usual`, a thousand, a black-box attack ("square") and the
    unbounded attack ("unbounded").
    """
    eps, step_size = usual.eps, usual.step_size
    iterated = [attacks.PGD(eps, step_size, steps) for steps in sorted({FEW, usual.steps, MANY})]
    return {
        "fgsm": attacks.FGSM(eps),
        **{str(attack).lower(): attack for attack in iterated},
        "square": autoattack.Square(eps),
        "unbounded": attacks.PGD(math.inf, step_size, MANY, start="none"),
    }
