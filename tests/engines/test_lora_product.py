import pytest
import torch

from m1lite.engines.lora_product import add_products, rows_by_slot

SIZES = (6, 3, 4)


@pytest.fixture
def stacks():
    generator = torch.Generator().manual_seed(2)
    a = [torch.randn(3, 1, 2, 5, generator=generator) for _ in SIZES]
    b = [torch.randn(3, 1, size, 2, generator=generator) for size in SIZES]
    return a, b


@pytest.mark.parametrize(
    "slots", [[0, 0, 0, 0], [-1, -1, -1, -1], [0, 0, -1, 2], [2, 0, -1, 0], [1, 2, 1, 2], [-1, 1, -1, -1]]
)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_products_equal_a_loop_over_rows(stacks, slots, scale):
    a, b = stacks
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(4, 5, generator=generator), torch.randn(4, 15, generator=generator)
    expected = y.clone()
    for row, slot in enumerate(slots):
        start = 0
        for part, size in enumerate(SIZES):
            if slot >= 0:
                expected[row, start : start + size] += scale * b[part][slot, 0] @ (a[part][slot, 0] @ x[row])
            start += size
    add_products(y, x, a, b, groups=rows_by_slot(torch.tensor(slots)), sizes=SIZES, scale=scale)
    assert torch.allclose(y, expected, atol=1e-5)


def test_rows_of_the_plain_base_are_left_bit_by_bit(stacks):
    y = torch.randn(4, 15, generator=torch.Generator().manual_seed(4))
    before = y.clone()
    groups = rows_by_slot(torch.tensor([2, -1, -1, 2]))
    add_products(y, torch.ones(4, 5), *stacks, groups=groups, sizes=SIZES, scale=1.0)
    assert torch.equal(y[1:3], before[1:3])
    assert not torch.equal(y[0], before[0])
