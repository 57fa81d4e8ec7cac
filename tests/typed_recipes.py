"""How the papers train, typed from their text: the only list of it; the codes' is in `released_steps`."""

RKD_TEACHER = {"epochs": 100, "batch_size": 128, "lr": 0.1, "schedule": "exponential", "gamma": 0.9, "attack_steps": 7}
RKD_STUDENT = {"epochs": 100, "batch_size": 256, "lr": 0.21, "schedule": "onecycle", "attack_steps": 7}
STEPS = {"lr": 0.1, "schedule": "multistep", "batch_size": 128, "weight_decay": 2e-4}
# ARD section 8 says all but the batch size, and takes the weight decay for the momentum; its code has both
ARD_RECIPE = {**STEPS, "epochs": 200, "milestones": (100, 150)}
PEERAID = {
    # "decays at epochs of 215, 260 and 285", counting from 1; the code counts from 0
    **{"epochs": 300, "lr": 0.1, "schedule": "multistep", "milestones": (214, 259, 284)},
    **{"batch_size": 128, "weight_decay": 2e-4},
}

RECIPES = {
    # PeerAiD trained its baselines "following their original settings"; ordinary training has none
    "Natural": {},
    # 80,000 steps of 128 images, the rate drops after 40,000 and 60,000; of 50,000 images
    "PGD-AT": {**STEPS, "epochs": 205, "milestones": (102, 154)},
    # the drops are the code's, which counts epochs from 1
    "TRADES": {**STEPS, "epochs": 100, "milestones": (74, 89, 99)},
    "Low-eps AT": RKD_TEACHER,
    "FFGSM-AT": {"epochs": 100, "batch_size": 128, "lr": 0.1, "schedule": "exponential", "gamma": 0.9},
    # of Free-AT the sources say that m passes count as one epoch; the schedule is ARD's, in whose Table 9 it stands
    **dict.fromkeys(("KD", "ARD", "Fast-ARD", "Free-AT"), ARD_RECIPE),
    "RSLAD": {**STEPS, "epochs": 300, "milestones": (215, 260, 285)},
    **dict.fromkeys(("AKD", "ARD+", "RSLAD+", "AKD+"), RKD_STUDENT),
    "IAD": {**STEPS, "epochs": 200, "milestones": (100, 150)},
    # the original's, of which the code averages weights from epoch 55 on
    "AKD2": {**STEPS, "epochs": 200, "milestones": (50, 150), "weight_decay": 5e-4, "swa_start": 55},
    # the released code's
    "AdaAD": {**STEPS, "epochs": 200, "milestones": (100, 150), "weight_decay": 5e-4},
    # the released code counts from 1 and drops the rate after 99 and 149 epochs
    "CAT": {**STEPS, "epochs": 200, "milestones": (99, 149), "weight_decay": 5e-4},
    **dict.fromkeys(("PeerAiD", "PeerAiD-fixed"), PEERAID),
}

TINY_IMAGENET = {
    "tiny_imagenet": {**PEERAID, "epochs": 200, "milestones": (99, 149)},
    "tiny_imagenet wrn-34-10": {**PEERAID, "epochs": 100, "milestones": (49, 79)},
}
RECIPES_ON = {
    **dict.fromkeys(("PeerAiD", "PeerAiD-fixed"), TINY_IMAGENET),
    "TRADES": {"cifar10": {"eps": 0.031, "step_size": 0.007}},
}
