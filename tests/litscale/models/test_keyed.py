"""Keys and the numbers made of them, against the definition in whole numbers."""

import pytest
import torch

from litscale.models.fractal.masking import Masking
from litscale.models.keyed import STEP, canvas_keys, mixed, numbers, signed, uniform

WORD = 2**64


def splitmix(x):
    x %= WORD
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


@pytest.mark.parametrize("seed", [0, 7, -1, 2**70])
def test_keys_equal_the_definition(seed):
    canvas = torch.tensor([[[[0, 3], [255, 1]]], [[[3, 0], [255, 1]]]], dtype=torch.uint8)
    expected = []
    for cells in ([0, 3, 255, 1], [3, 0, 255, 1]):
        total = sum(splitmix((cell + 256 * place) * STEP) for place, cell in enumerate(cells, start=1))
        expected.append(signed(splitmix((total % WORD) ^ splitmix(seed))))
    assert canvas_keys(canvas, seed).tolist() == expected


def test_numbers_equal_the_definition():
    keys = torch.tensor([5, -9])
    expected = [[splitmix(((key % WORD) ^ i) + STEP) for i in range(3)] for key in (5, -9)]
    bits = numbers(keys, 3)
    assert bits.tolist() == [[signed(x) for x in row] for row in expected]
    assert uniform(bits).tolist() == [[(x >> 40) * 2.0**-24 for x in row] for row in expected]
    assert keys.tolist() == [5, -9]


def test_one_changed_cell_changes_a_key_as_does_its_place():
    canvas = torch.zeros(1, 1, 8, 8, dtype=torch.uint8).repeat(65, 1, 1, 1)
    canvas.flatten(1)[torch.arange(64), torch.arange(64)] = 1
    assert len(canvas_keys(canvas, 0).unique()) == 65


def test_masks_follow_the_keys_of_rows_and_places():
    keys = canvas_keys(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), 0)
    device = torch.device("cpu")
    whole, part = Masking("likelihood", keys=keys), Masking("likelihood", keys=keys[[2]])
    mask, weight, _ = whole(4, 6, device)
    one, one_weight, _ = part(1, 6, device)
    assert torch.equal(mask[2], one[0])
    assert torch.equal(weight, 6 / mask.sum(1))
    assert weight[2] == one_weight[0]
    # the patches of row 2 have the same masks below, whatever other rows go down with them
    whole.descend(6, torch.tensor([1, 12, 16]))  # patch 1 of row 0, patches 0 and 4 of row 2
    part.descend(6, torch.tensor([0, 4]))
    assert torch.equal(whole(3, 50, device)[0][1:], part(2, 50, device)[0])


def test_keyed_masks_hide_every_patch_and_count_equally_often():
    mask, *_ = Masking("likelihood", keys=mixed(torch.arange(60_000)))(60_000, 6, torch.device("cpu"))
    counts = mask.sum(1)
    frequency = torch.bincount(counts, minlength=7)[1:] / 60_000
    assert torch.allclose(frequency, torch.full((6,), 1 / 6), atol=0.01)
    assert torch.allclose(mask[counts == 2].float().mean(0), torch.full((6,), 1 / 3), atol=0.02)
