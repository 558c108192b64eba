"""Distillation: a teacher, labelled states and an architecture in, a smaller agent out."""

from kdcli.registry import Registry

LOSSES = Registry(
    "loss",
    {
        "kl": ("kdcli.distillation.losses:kl", "KL(teacher || student) of the action distributions at temperature tau"),
        "reverse_kl": ("kdcli.distillation.losses:reverse_kl", "KL(student || teacher) at temperature tau"),
        "js": ("kdcli.distillation.losses.choices:js", "Jensen-Shannon divergence of choices at temperature tau"),
        "cross_entropy": (
            "kdcli.distillation.losses.choices:cross_entropy",
            "cross-entropy with the teacher's soft targets at temperature tau",
        ),
        "softmax_q": (
            "kdcli.distillation.losses.choices:softmax_q",
            "KL to the softmax of the teacher's Q-values, sharpened by a tau below 1",
        ),
        "nll": ("kdcli.distillation.losses:nll", "negative log-likelihood of the teacher's greedy action"),
        "action": (
            "kdcli.distillation.losses.actions:action",
            "squared distance of the continuous action, bounds at -1 and 1",
        ),
        "huber": (
            "kdcli.distillation.losses.actions:huber",
            "Huber error of the continuous action, bounds at +-1",
        ),
        "mean": ("kdcli.distillation.losses.actions:mean", "squared distance of the mean before squashing or clipping"),
        "mean_huber": ("kdcli.distillation.losses.actions:mean_huber", "Huber error of the mean before squashing"),
        "wasserstein": (
            "kdcli.distillation.losses.actions:wasserstein",
            "squared Wasserstein-2 distance of the Gaussians",
        ),
        "logits": (
            "kdcli.distillation.losses.choices:logits",
            "squared error of the logits, centred over actions",
        ),
        "logits_huber": ("kdcli.distillation.losses.choices:logits_huber", "Huber error of the centred logits"),
        "q": (
            "kdcli.distillation.losses.values:q",
            "squared error of the Q-values, what decides apart from their height",
        ),
        "q_huber": (
            "kdcli.distillation.losses.values:q_huber",
            "Huber error of the Q-values, delta 1 deviation of the teacher's",
        ),
        "value": (
            "kdcli.distillation.losses.values:value",
            "squared error of the state value, in the teacher's own deviation",
        ),
        "value_l1": (
            "kdcli.distillation.losses.values:value_l1",
            "absolute error of the state value, in the teacher's own deviation",
        ),
        "regret": (
            "kdcli.distillation.losses.values:regret",
            "what the student's choice costs by the teacher's Q-values (AggreVaTe)",
        ),
        "gated": (
            "kdcli.distillation.losses.gate:Gated",
            "each of several teachers by its weight in this state, learned by attention",
        ),
        "hint": (
            "kdcli.distillation.losses.features:Hint",
            "the last hidden layer, after a learned projection (FitNets)",
        ),
        "state_hint": (
            "kdcli.distillation.losses.features:StateHint",
            "the recurrent state, after a learned projection",
        ),
        "attention": ("kdcli.distillation.losses.features:attention", "where the last convolution is active"),
        "rkd_distance": (
            "kdcli.distillation.losses.features:rkd_distance",
            "distances between the hidden layers of a batch (RKD)",
        ),
        "rkd_angle": (
            "kdcli.distillation.losses.features:rkd_angle",
            "angles between the hidden layers of a batch (RKD); batches of some dozens",
        ),
        "noise_entropy": (
            "kdcli.distillation.losses.entropy:noise_entropy",
            "entropy of the student's choice in a state, to be lost",
        ),
        "decision_entropy": (
            "kdcli.distillation.losses.entropy:decision_entropy",
            "how much the state decides the choice, to be kept as the teacher's",
        ),
    },
    group="kdcli.losses",
)

TEMPERATURES = Registry(
    "temperature",
    {
        "entropy": (
            "kdcli.distillation.temperatures:EntropyTarget",
            "the one that gives soft labels this share of the largest entropy: entropy:0.5",
        ),
        "state": (
            "kdcli.distillation.temperatures:PerState",
            "each state's own, from where the teacher is unsure to where it is sure: state:1->4",
        ),
        "divergence": (
            "kdcli.distillation.temperatures:DivergenceMatch",
            "from where student and teacher agree to where they are far apart: divergence:1->4",
        ),
        "sharpness": (
            "kdcli.distillation.temperatures:SharpnessMatch",
            "as many times as the teacher's logits are sharper than the student's: sharpness:0.5->8",
        ),
        "adversarial": (
            "kdcli.distillation.temperatures:Adversarial",
            "learned against the student, by gradient reversal: adversarial:1->8",
        ),
        "curriculum": (
            "kdcli.distillation.temperatures:curriculum",
            "adversarial, its strength growing over the first half: curriculum:1->8",
        ),
    },
    group="kdcli.temperatures",
)

WEIGHINGS = Registry(
    "weighing",
    {
        "uniform": ("kdcli.distillation.sample_weights:uniform", "every state as much"),
        "criticality": (
            "kdcli.distillation.sample_weights:criticality",
            "by the gap between the teacher's best and worst action (VIPER)",
        ),
        "margin": ("kdcli.distillation.sample_weights:margin", "by the gap between the teacher's best two actions"),
        "confidence": ("kdcli.distillation.sample_weights:confidence", "by how sure the teacher is: 1 - entropy share"),
        "advantage": (
            "kdcli.distillation.sample_weights:advantage",
            "by the exponential of the greedy action's advantage, of a teacher with Q-values",
        ),
    },
)

SCHEDULES = Registry(
    "schedule",
    {
        "constant": ("kdcli.distillation.schedules:constant", "the same number throughout: constant:0.5, or just 0.5"),
        "linear": ("kdcli.distillation.schedules:linear", "a straight line: linear:1->0"),
        "cosine": ("kdcli.distillation.schedules:cosine", "half a cosine, flat at both ends: cosine:1->0"),
        "exponential": ("kdcli.distillation.schedules:exponential", "equal ratios in equal times: exponential:1->0.01"),
        "steps": ("kdcli.distillation.schedules:steps", "equal parts at each number: steps:1->0.5->0.1"),
    },
    group="kdcli.schedules",
)

CONTROLS = Registry(
    "control",
    {
        "agreement": (
            "kdcli.distillation.term_weights:parse_weight",
            "a weight by how often the student does what the teacher does: kl@agreement:1->0.1",
        ),
        "return": (
            "kdcli.distillation.term_weights:parse_weight",
            "a weight by the student's score, 0 random play, 1 the teacher: hint@return:1->0",
        ),
    },
)

BALANCES = Registry(
    "balance",
    {
        "fixed": ("kdcli.distillation.loss_balancing:Fixed", "the weights that are given"),
        "uncertainty": (
            "kdcli.distillation.loss_balancing:Uncertainty",
            "each term over a learned variance (Kendall et al. 2018)",
        ),
        "gradient": (
            "kdcli.distillation.loss_balancing:GradientNorm",
            "every term pulls the last hidden layer as hard as the first (GradNorm)",
        ),
    },
)

REINFORCEMENTS = Registry(
    "reinforcement",
    {
        "ppo": ("kdcli.distillation.reinforcement:ppo", "the clipped surrogate on the student's own play"),
        "pg": ("kdcli.distillation.reinforcement:policy_gradient", "the policy gradient on the student's own play"),
    },
)

REPLAYS = Registry(
    "replay",
    {
        "uniform": ("kdcli.distillation.replay:uniform", "every state as often"),
        "prioritized": (
            "kdcli.distillation.replay:prioritized",
            "states where student and teacher differ more often: prioritized:0.6 (Schaul et al. 2016)",
        ),
    },
)

AUGMENTATIONS = Registry(
    "augmentation",
    {
        "gaussian": (
            "kdcli.distillation.augmentation:gaussian",
            "noise on every number, in standard deviations of the data: gaussian:0.05",
        ),
        "mix": ("kdcli.distillation.augmentation:mix", "between two states, up to so far from the first: mix:0.2"),
        "shift": ("kdcli.distillation.augmentation:shift", "images moved by up to so many pixels: shift:4"),
    },
)

DATA = Registry(
    "data mode",
    {
        "offline": ("kdcli.distillation.data_modes:student", "recorded states, the dataset; nobody plays"),
        "teacher": ("kdcli.distillation.data_modes:teacher", "the teacher plays"),
        "student": ("kdcli.distillation.data_modes:student", "the student plays, after the first round"),
        "dagger": ("kdcli.distillation.data_modes:dagger", "a mixture, the teacher in a share beta of the steps"),
        "dart": (
            "kdcli.distillation.data_modes:teacher",
            "the teacher plays, with as much noise as the student is wrong (DART)",
        ),
    },
)

PENALTIES = Registry(
    "penalty",
    {
        "ewc": (
            "kdcli.distillation.penalties:ewc",
            "moving a weight costs what it says of earlier tasks: elastic weight consolidation",
        ),
        "l2": ("kdcli.distillation.penalties:l2", "moving a weight costs its squared distance from the start (L2-SP)"),
    },
)
