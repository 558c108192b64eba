"""Laws of every loss in the table: a new row is tested by being there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.heads import Heads
from kdcli.distillation import LOSSES
from kdcli.distillation.losses.facts import facts_of
from kdcli.distillation.objective import Objective, parse_term
from kdcli.errors import UsageError
from kdcli.spec import box

B = 64
FACTS = {name: facts_of(LOSSES.load(name)) for name in LOSSES.names()}
TEMPERED = {name for name, facts in FACTS.items() if facts.tempered}
RESCALED = {name for name, facts in FACTS.items() if facts.rescaled}


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def discrete(scores: Tensor, **more: Any) -> Heads:
    return Heads(logits=scores, choice=scores.argmax(1), groups=(scores.shape[1],), **more)


def multi(scores: Tensor) -> Heads:
    choices = torch.stack([part.argmax(1) for part in scores.split([3, 2], 1)], 1)
    return Heads(logits=scores, choice=choices, groups=(3, 2))


def bits(scores: Tensor) -> Heads:
    return Heads(logits=scores, choice=(scores > 0).long(), bits=True)


def continuous(values: Tensor) -> Heads:
    return Heads(mean=values, log_std=torch.full_like(values, -0.5), action=values.clamp(-1, 1))


def spreading(values: Tensor) -> Heads:
    """A Gaussian whose spread is different in every state."""
    return Heads(mean=values, log_std=0.3 * values.flip(1) - 0.5, action=values.clamp(-1, 1))


def with_q(values: Tensor) -> Heads:
    return Heads(q=values, choice=values.argmax(1), groups=(values.shape[1],))


def with_value(values: Tensor) -> Heads:
    return Heads(value=values[:, 0])


def with_features(values: Tensor) -> Heads:
    return Heads(features=values)


def with_state(values: Tensor) -> Heads:
    return Heads(state=values)


def with_attention(values: Tensor) -> Heads:
    return Heads(attention=values.abs()[:, None])


def of_two(heads: Heads, said: Tensor) -> Heads:
    """What two teachers say who are of one mind."""
    shares = torch.tensor([0.7, 0.3]).expand(len(said), 2)
    return heads.having({"features": said, "members": torch.stack([said, said], 1), "shares": shares})


def two_choose(values: Tensor) -> Heads:
    return of_two(discrete(values), values)


def two_act(values: Tensor) -> Heads:
    return of_two(continuous(values), values.clamp(-1, 1))


CASES = {
    "kl": [discrete, multi, bits, continuous, spreading, with_q],
    "reverse_kl": [discrete, multi, bits, continuous, spreading, with_q],
    "js": [discrete, multi, bits, with_q],
    "cross_entropy": [discrete, multi, bits, with_q],
    "softmax_q": [with_q, discrete, multi, bits],
    "nll": [discrete, multi, bits, with_q, spreading],
    "action": [continuous],
    "huber": [continuous],
    "mean": [continuous],
    "mean_huber": [continuous],
    "wasserstein": [continuous, spreading],
    "logits": [discrete, multi, bits],
    "logits_huber": [discrete, multi, bits],
    "q": [with_q],
    "q_huber": [with_q],
    "value": [with_value],
    "value_l1": [with_value],
    "regret": [with_q],
    "gated": [two_choose, two_act],
    "hint": [with_features],
    "state_hint": [with_state],
    "attention": [with_attention],
    "rkd_distance": [with_features],
    "rkd_angle": [with_features],
    "noise_entropy": [discrete, multi, bits, with_q],
    "decision_entropy": [discrete, multi, bits, with_q],
}
# Least, but not zero, at equality: what is left there is the teacher's entropy, or the student's own spread.
# Regret is the teacher's own, when it is not sure; the noise of a student is that of any policy.
LEAST = {"cross_entropy", "nll", "regret", "noise_entropy"}
EACH = [(name, make) for name, makes in CASES.items() for make in makes]
IDS = [f"{name}-{make.__name__}" for name, make in EACH]
each = pytest.mark.parametrize(("name", "make"), EACH, ids=IDS)


def loss_of(name: str) -> Any:
    return parse_term(name).loss


def test_every_loss_has_cases() -> None:
    """Law: no loss is in the table without being held to the laws."""
    assert set(CASES) == set(LOSSES.names())


@each
def test_one_number_a_sample(name: str, make: Any) -> None:
    """Law: heads of B states give B finite numbers, none negative."""
    found = loss_of(name)(make(draw(0, B, 5)), make(draw(1, B, 5)), 2.0)
    assert found.shape == (B,)
    assert torch.isfinite(found).all()
    assert (found >= -1e-6).all() or (name, make) == ("nll", spreading)
    assert found.max() > 1e-3


@each
def test_zero_at_equality(name: str, make: Any) -> None:
    """Law: a student that says what the teacher says loses nothing, and no other has less."""
    loss, same = loss_of(name), make(draw(0, B, 5))
    tau = 1.0 if name == "softmax_q" else 2.0
    if name not in LEAST:
        assert loss(same, same, tau).abs().max() < 1e-6
    elif name == "cross_entropy":
        other = make(draw(0, B, 5) + 0.3 * draw(7, B, 5))
        assert (loss(other, same, tau) > loss(same, same, tau)).all()


def test_a_certain_student_is_likely() -> None:
    """Law: the likelihood loss tends to zero for a student that is sure of what the teacher does."""
    same = discrete(draw(0, B, 5))
    sure = 200.0 * (2 * torch.nn.functional.one_hot(same.choice, 5) - 1).float()
    assert LOSSES.load("nll")(Heads(logits=sure, groups=(5,)), same, 1.0).max() < 1e-5


@each
def test_gradient_to_the_student_only(name: str, make: Any) -> None:
    """Law: the student learns, the teacher does not."""
    ours, theirs = draw(0, B, 5).requires_grad_(), draw(1, B, 5).requires_grad_()
    teacher = make(theirs)
    loss_of(name)(
        make(ours), teacher.having({k: t.detach() for k, t in teacher.present().items()}), 1.0
    ).sum().backward()
    assert ours.grad is not None
    assert ours.grad.abs().sum() > 0
    assert theirs.grad is None


@each
def test_a_loss_reads_what_it_says(name: str, make: Any) -> None:
    """Law: a loss gets along with the teacher's heads that the table says it reads."""
    ours, teacher = make(draw(0, B, 5)), make(draw(1, B, 5))
    read = {k: t for k, t in teacher.present().items() if k in (FACTS[name].reads or ())}
    alone = Heads(groups=teacher.groups, bits=teacher.bits).having(read)
    loss = loss_of(name)
    torch.testing.assert_close(loss(ours, alone, 1.0), loss(ours, teacher, 1.0))


@each
def test_a_loss_has_the_temperature_it_declares(name: str, make: Any) -> None:
    """Law: a temperature changes a loss that says so, and no other."""
    ours, theirs, loss = make(draw(0, B, 5)), make(draw(1, B, 5)), loss_of(name)
    assert (loss(ours, theirs, 1.0) - loss(ours, theirs, 8.0)).abs().max() > 1e-3 or not FACTS[name].tempered
    assert torch.equal(loss(ours, theirs, 1.0), loss(ours, theirs, 8.0)) or FACTS[name].tempered


KINDS = {"choices": {discrete, multi, bits, with_q}, "continuous": {continuous, spreading}}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_of_the_actions_it_declares(name: str) -> None:
    """Law: a loss of choices has cases of choices alone, and so of continuous actions."""
    kind = FACTS[name].of
    assert kind == "any" or set(CASES[name]) <= KINDS[kind]
    assert kind != "any" or not any(set(CASES[name]) <= kinds for kinds in KINDS.values())


@each
def test_order_of_the_batch_does_not_matter(name: str, make: Any) -> None:
    """Law: a sample's loss does not depend on its neighbours."""
    ours, theirs, order = draw(0, B, 5), draw(1, B, 5), torch.randperm(B, generator=torch.Generator().manual_seed(2))
    loss = loss_of(name)
    torch.testing.assert_close(
        loss(make(ours), make(theirs), 1.0)[order], loss(make(ours[order]), make(theirs[order]), 1.0)
    )


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("name", sorted(TEMPERED))
@pytest.mark.parametrize("make", [discrete, bits])
def test_stable_at_any_temperature(name: str, make: Any, tau: float) -> None:
    """Law: no temperature from 0.01 to 100 makes a divergence or its gradient infinite, even for far logits."""
    ours = (100.0 * draw(0, B, 5)).requires_grad_()
    found = loss_of(name)(make(ours), make(100.0 * draw(1, B, 5)), tau)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()


def test_kl_against_torch() -> None:
    """Law: KL is torch's own, from teacher to student."""
    ours, theirs = draw(0, B, 5), draw(1, B, 5)
    categorical = torch.distributions.Categorical
    right = torch.distributions.kl_divergence(categorical(logits=theirs / 3), categorical(logits=ours / 3))
    torch.testing.assert_close(LOSSES.load("kl")(discrete(ours), discrete(theirs), 3.0), right)


# Of the centred logit difference over A, the gradient at high temperature; the middle distribution is half-way.
SHARES = {"kl": 1.0, "reverse_kl": 1.0, "cross_entropy": 1.0, "js": 0.25}


@pytest.mark.parametrize("name", sorted(RESCALED))
def test_tau_squared_keeps_the_gradient(name: str) -> None:
    """Law: at high temperature the objective's gradient tends to the centred logit difference (Hinton, eq. 4)."""
    ours, theirs = draw(0, B, 5).requires_grad_(), draw(1, B, 5)
    assert SHARES.keys() == RESCALED
    Objective.parse([name], "100")(discrete(ours), discrete(theirs), 0.0).backward()
    gap = ours.detach() - theirs
    wanted = SHARES[name] * (gap - gap.mean(1, keepdim=True)) / 5 / B
    torch.testing.assert_close(ours.grad, wanted, rtol=0.05, atol=1e-4)


def test_gaussian_divergences_against_torch() -> None:
    """Law: both KLs of Gaussians are torch's own, in their directions."""
    ours, theirs = spreading(draw(0, B, 5)), spreading(draw(1, B, 5))
    a, b = (torch.distributions.Normal(heads.mean, heads.log_std.exp()) for heads in (ours, theirs))  # type: ignore[union-attr]
    for name, pair in (("kl", (b, a)), ("reverse_kl", (a, b))):
        right = torch.distributions.kl_divergence(*pair).sum(1)
        torch.testing.assert_close(loss_of(name)(ours, theirs, 1.0), right)
    torch.testing.assert_close(LOSSES.load("nll")(ours, theirs, 1.0), -a.log_prob(theirs.mean).sum(1))


def test_js_against_its_definition() -> None:
    """Law: Jensen-Shannon is symmetric, and at most log 2."""
    ours, theirs = discrete(8 * draw(0, B, 5)), discrete(8 * draw(1, B, 5))
    found = LOSSES.load("js")(ours, theirs, 1.0)
    torch.testing.assert_close(found, LOSSES.load("js")(theirs, ours, 1.0))
    assert 0.3 < found.max() <= 0.6932


def test_sharpening_does_not_shrink_the_gradient() -> None:
    """Law: a temperature of 0.01 on the teacher's Q-values leaves the student a gradient as large as at 1."""
    ours = draw(0, B, 5).requires_grad_()
    Objective.parse(["softmax_q"], "0.01")(with_q(ours), with_q(0.01 * draw(1, B, 5)), 0.0).backward()
    assert ours.grad is not None
    assert ours.grad.abs().sum() > 0.1


def test_weights_add_up() -> None:
    """Law: the objective is the weighted sum of its terms, weights by their schedules."""
    ours, theirs = continuous(draw(0, B, 5)), continuous(draw(1, B, 5))
    both = Objective.parse(["action@0.7", "mean@linear:0->0.6"], "1")(ours, theirs, 0.5)
    parts = [loss_of(name)(ours, theirs, 1.0).mean() for name in ("action", "mean")]
    torch.testing.assert_close(both, 0.7 * parts[0] + 0.3 * parts[1])


def test_beyond_a_bound_where_the_teacher_sits_is_no_error() -> None:
    """Law: where the env clips, a student may go further the same way, and is pulled back only otherwise."""
    teacher = ActionRule(box((1,), -2, 2)).taught(torch.tensor([[2.0], [2.0], [0.0]]))
    student = Heads(action=torch.tensor([[1.7], [0.5], [1.7]]))
    found = LOSSES.load("action")(student, teacher, 1.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.25, 1.7**2]))


def test_a_missing_signal_is_named() -> None:
    """Law: a loss that the teacher cannot feed says which signal is missing and what there is."""
    with pytest.raises(UsageError, match="teacher's q") as error:
        LOSSES.load("q")(with_q(draw(0, B, 5)), discrete(draw(0, B, 5)), 1.0)
    assert "logits" in error.value.why


@pytest.mark.parametrize("name", ["action", "huber"])
def test_no_gradient_beyond_a_bound(name: str) -> None:
    """Law: where going further is no error there is no gradient either, and everywhere else there is."""
    teacher = ActionRule(box((1,), -1, 1)).taught(torch.tensor([[1.0], [1.0], [-1.0], [0.0]]))
    action = torch.tensor([[1.7], [0.5], [-1.2], [1.7]], requires_grad=True)
    loss_of(name)(Heads(action=action), teacher, 1.0).sum().backward()
    assert action.grad is not None
    assert (action.grad[:, 0] != 0).tolist() == [False, True, False, True]
