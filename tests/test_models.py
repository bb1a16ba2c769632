"""The network: the formulas of the report, and no setting without an effect."""

from dataclasses import replace

import pytest
import torch

from selectormlp.data import InputError
from selectormlp.models import NetworkShape, Selector, SelectorNet, _Dropout, _random_words, selector_penalty

SHAPE = NetworkShape(n_genes=40, n_types=5, hidden_sizes=(16, 8))


@pytest.mark.parametrize(
    "change",
    [
        {"n_genes": 41}, {"n_types": 6}, {"selector": "clamped"}, {"selector": "none"}, {"start": "one"},
        {"hidden_sizes": (16, 9)}, {"dropout": 0.0}, {"batch_norm": False}, {"leak": 0.5},
    ],
)  # fmt: skip
def test_every_field_of_the_shape_changes_the_network(change: dict) -> None:
    def described(shape: NetworkShape) -> tuple:
        torch.manual_seed(0)
        network = SelectorNet(shape)
        return str(network), {name: value.tolist() for name, value in network.state_dict().items()}

    assert described(SHAPE) != described(replace(SHAPE, **change))


def test_starts_of_the_selectors_are_the_reports() -> None:
    torch.manual_seed(0)
    free, clamped = Selector(20_000).weight, Selector(20_000, clamped=True).weight
    assert abs(free.mean()) < 0.03 and abs(free.std() - 1) < 0.03
    assert clamped.min() >= 0 and abs(clamped.pow(2).mean().sqrt() - 0.2) < 0.01


def test_clamped_selector_stays_between_zero_and_one() -> None:
    selector = Selector(3, clamped=True)
    with torch.no_grad():
        selector.weight.copy_(torch.tensor([-1.0, 0.5, 7.0]))
    assert selector(torch.ones(1, 3)).tolist() == [[0.0, 0.5, 1.0]]


@pytest.mark.parametrize("kind", ["l1", "l2", "l1_l2"])
def test_penalties_have_the_gradient_of_their_formula(kind: str) -> None:
    weight = torch.tensor([3.0, -4.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: selector_penalty(w, kind), (weight,))


@pytest.mark.parametrize("change", [{"selector": "open"}, {"hidden_sizes": ()}, {"dropout": 1.0}])
def test_refusals(change: dict) -> None:
    with pytest.raises(InputError):
        replace(SHAPE, **change)
    with pytest.raises(InputError, match="must be one of 'none', 'l1', 'l2', 'l1_l2'"):
        selector_penalty(torch.ones(2), "l3")


def test_the_folded_selector_learns_as_the_plain_product_does() -> None:
    """Sixty steps with the folded first layer and with x * w and autograd: the same losses within float32."""

    def losses(plain: bool) -> list[float]:
        torch.manual_seed(1)
        net = SelectorNet(replace(SHAPE, dropout=0.0))
        x, y = torch.rand(64, 40), torch.arange(64) % 5
        optimizer, found = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.3), []
        for _ in range(60):
            scores = net.rest(net.first(net.selector(x))) if plain else net(x)
            loss = torch.nn.functional.cross_entropy(scores, y) + 0.1 * net.penalty("l1")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    torch.testing.assert_close(
        torch.tensor(losses(plain=False)), torch.tensor(losses(plain=True)), rtol=1e-4, atol=1e-5
    )


def test_dropout_keeps_the_mean_and_draws_from_torch() -> None:
    drop, ones = _Dropout(0.25), torch.ones(300, 301)
    torch.manual_seed(3)
    first, second = drop(ones), drop(ones)
    torch.manual_seed(3)
    assert torch.equal(drop(ones), first) and not torch.equal(first, second)
    torch.testing.assert_close(first.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert abs(float((first == 0).float().mean()) - 0.25) < 0.006
    assert abs(float((first == 0).float().mul((second == 0).float()).mean()) - 0.25**2) < 0.006
    assert torch.equal(drop.eval()(ones), ones)


def test_random_words_are_even() -> None:
    torch.manual_seed(0)
    words = _random_words(200_001)
    assert words.dtype == torch.int16 and len(words) == 200_001
    counts = torch.bincount((words.int() + 32768) // 4096, minlength=16)
    assert counts.min() > 200_001 / 16 * 0.95 and counts.max() < 200_001 / 16 * 1.05
