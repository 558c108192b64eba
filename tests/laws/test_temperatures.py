"""Laws of temperatures and of the importance of states."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.distillation import TEMPERATURES, WEIGHINGS
from kdcli.distillation.losses.reading import Tau
from kdcli.distillation.objective import Objective
from kdcli.distillation.sample_weights import in_the_mean, parse_weighing
from kdcli.distillation.temperatures import HIGHEST, LOWEST, entropy_share, parse_temperature
from kdcli.errors import UsageError

B = 64
TEXTS = {
    "entropy": "entropy:0.5",
    "state": "state:1->4",
    "divergence": "divergence:1->4",
    "sharpness": "sharpness:0.5->8",
    "adversarial": "adversarial:1->8",
    "curriculum": "curriculum:1->8",
}
each = pytest.mark.parametrize("name", sorted(TEXTS))


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heads(scores: Tensor) -> Heads:
    return Heads(logits=scores, groups=(scores.shape[1],))


def number(tau: Tau) -> float:
    return float(tau.detach().mean()) if isinstance(tau, Tensor) else tau


def test_every_temperature_is_held_to_the_laws() -> None:
    """Law: no row is in the table without a text here."""
    assert set(TEXTS) == set(TEMPERATURES.names())


@each
@pytest.mark.parametrize("far", [1e-4, 1.0, 300.0])
def test_temperatures_stay_in_their_range(name: str, far: float) -> None:
    """Law: whatever student and teacher say, a temperature is finite, positive, in the range it was given."""
    made, numbers = parse_temperature(TEXTS[name]), TEXTS[name].partition(":")[2].split("->")
    low, high = (LOWEST, HIGHEST) if name == "entropy" else (float(numbers[0]), float(numbers[1]))
    for progress in (0.0, 0.5, 1.0):
        tau = torch.as_tensor(made(progress, heads(draw(0, B, 5)), heads(far * draw(1, B, 5))))
        assert torch.isfinite(tau).all()
        assert (low - 1e-6 <= tau).all()
        assert (tau <= high + 1e-6).all()
        assert tau.shape in {(), (B, 1), (1, 1)}


@each
def test_temperatures_change_what_is_learned(name: str) -> None:
    """Law: no temperature of the table is one in disguise: the objective's gradient is another."""
    ours, teacher = draw(0, B, 5).requires_grad_(), heads(3 * draw(1, B, 5))
    gradients = []
    for text in (TEXTS[name], "1"):
        objective = Objective.parse(["kl"], text)
        (gradient,) = torch.autograd.grad(objective(heads(ours), teacher, 0.3), ours)
        gradients.append(gradient)
    assert torch.isfinite(gradients[0]).all()
    assert not torch.allclose(*gradients, rtol=0.05)


def test_the_entropy_is_met() -> None:
    """Law: at the temperature found, the labels' mean entropy is the share that was asked for."""
    teacher = heads(5 * draw(1, B, 5))
    for share in (0.1, 0.5, 0.9):
        tau = parse_temperature(f"entropy:{share}")(0.0, teacher, teacher)
        assert float(entropy_share(teacher.logits / tau, teacher).mean()) == pytest.approx(share, abs=1e-3)  # type: ignore[operator]


def test_entropy_share_has_its_ends() -> None:
    """Law: 1 for indifference, 0 for certainty, for one choice, several side by side, and bits."""
    even, sure = torch.zeros(1, 5), torch.tensor([[1e4, 0.0, 0.0, 1e4, 0.0]])
    for about in (Heads(groups=(5,)), Heads(groups=(3, 2))):
        assert float(entropy_share(even, about)) == pytest.approx(1.0)
    assert float(entropy_share(sure, Heads(groups=(3, 2)))) == pytest.approx(0.0, abs=1e-6)
    assert float(entropy_share(even, Heads(bits=True))) == pytest.approx(1.0)
    assert float(entropy_share(1e4 * (sure - 1), Heads(bits=True))) == pytest.approx(0.0, abs=1e-6)


def test_a_state_has_its_own_temperature() -> None:
    """Law: the first number where the teacher is indifferent, the last where it is certain."""
    teacher = heads(torch.tensor([[0.0, 0.0, 0.0], [1e4, 0.0, 0.0]]))
    tau = parse_temperature("state:1->4")(0.0, teacher, teacher)
    torch.testing.assert_close(tau, torch.tensor([[1.0], [4.0]]))


def test_divergence_leads_from_end_to_end() -> None:
    """Law: a student that is equal gets the first temperature, one that is far away the last."""
    teacher = heads(9 * draw(1, B, 5))
    assert parse_temperature("divergence:1->4")(0.0, teacher, teacher) == pytest.approx(1.0)
    assert number(parse_temperature("divergence:1->4")(0.0, heads(9 * draw(0, B, 5)), teacher)) > 3.5


def test_sharpness_makes_labels_as_soft_as_the_student() -> None:
    """Law: the teacher's logits divided by the temperature have the student's spread."""
    ours, theirs = draw(0, B, 5), 3.0 * draw(0, B, 5)
    assert parse_temperature("sharpness:0.5->8")(0.0, heads(ours), heads(theirs)) == pytest.approx(3.0, rel=1e-4)


def test_the_adversary_climbs_while_the_student_descends() -> None:
    """Law: with the step that makes the loss smaller for the student, the temperature goes where it is larger."""
    objective = Objective.parse(["kl"], "adversarial:1->8")
    ours, teacher = draw(0, B, 5).requires_grad_(), heads(3 * draw(1, B, 5))
    objective(heads(ours), teacher, 0.0).backward()
    (theta,) = objective.parameters()
    nudged = copy.deepcopy(objective)
    with torch.no_grad():
        next(nudged.parameters()).sub_(0.1 * torch.sign(theta.grad))  # type: ignore[arg-type]
    assert nudged(heads(ours), teacher, 0.0) > objective(heads(ours), teacher, 0.0)


def test_a_curriculum_begins_without_an_adversary() -> None:
    """Law: at first the temperature is left alone, from half-way on it is learned with full strength."""
    strengths = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        objective = Objective.parse(["kl"], "curriculum:1->8")
        objective(heads(draw(0, B, 5)), heads(3 * draw(1, B, 5)), progress).backward()
        (theta,) = objective.parameters()
        strengths.append(float(theta.grad))  # type: ignore[arg-type]
    shares = [s / strengths[-1] for s in strengths]
    assert shares == pytest.approx([0.0, 0.5, 1.0, 1.0], abs=1e-6)


@each
def test_a_temperature_goes_on_from_its_state(name: str) -> None:
    """Law: what a temperature has learned and remembers is in its state: restored, it goes on the same way."""
    first, second = parse_temperature(TEXTS[name]), parse_temperature(TEXTS[name])
    for seed in range(3):
        first(0.2, heads(draw(seed, B, 5)), heads(4 * draw(seed + 9, B, 5)))
    second.load_state_dict(first.state_dict())
    found = [number(made(0.4, heads(draw(7, B, 5)), heads(4 * draw(8, B, 5)))) for made in (first, second)]
    assert found[0] == found[1]


@pytest.mark.parametrize("text", ["entropy", "entropy:2", "state:1", "state:1->1000", "divergence:0->1", "hot:1"])
def test_what_cannot_be_read(text: str) -> None:
    """Law: a temperature that cannot be read is an error that says how it is written."""
    with pytest.raises(UsageError):
        parse_temperature(text)


@pytest.mark.parametrize("name", WEIGHINGS.names())
def test_importance_is_one_in_the_mean(name: str) -> None:
    """Law: no weighing is negative or changes the mean weight; states in another order keep theirs."""
    q, order = 3 * draw(0, B, 5), torch.randperm(B, generator=torch.Generator().manual_seed(1))
    weigh = parse_weighing(name)
    found = in_the_mean(weigh(Heads(q=q, groups=(5,))))
    assert (found >= 0).all()
    assert float(found.mean()) == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(in_the_mean(weigh(Heads(q=q[order], groups=(5,)))), found[order])
    assert bool(found.std() > 0.05) is (name != "uniform")


def test_criticality_is_what_the_worst_action_costs() -> None:
    """Law: VIPER's weight is the gap between best and worst Q-value: nothing matters where they are equal."""
    q = torch.tensor([[1.0, 4.0, 2.0], [5.0, 5.0, 5.0]])
    assert parse_weighing("criticality")(Heads(q=q, groups=(3,))).tolist() == [3.0, 0.0]
    assert parse_weighing("margin")(Heads(q=q, groups=(3,))).tolist() == [2.0, 0.0]


def test_importance_moves_the_objective() -> None:
    """Law: the objective is the mean of the losses times the importance of their states."""
    ours, teacher = Heads(logits=draw(0, B, 5), groups=(5,)), Heads(q=3 * draw(1, B, 5), groups=(5,))
    loss = Objective.parse(["softmax_q"], "1").terms[0].loss(ours, teacher, 1.0)
    weights = in_the_mean(parse_weighing("criticality")(teacher))
    found = Objective.parse(["softmax_q"], "1", "criticality")(ours, teacher, 0.0)
    torch.testing.assert_close(found, (weights * loss).mean())
    assert not math.isclose(float(found), float(loss.mean()), rel_tol=1e-3)
