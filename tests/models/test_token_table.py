"""The table of many tokens, in half precision on a CPU."""

import torch

from deqzoo.models.token_table import token_table


def test_losses_bear_autocast():
    table = token_table(50, 16, [10, 30])
    features, targets = torch.randn(2, 5, 16, requires_grad=True), torch.randint(50, (2, 5))
    want = table.losses(features, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(table.losses(features, targets), want)
        rounded = table.losses(features.bfloat16(), targets)
        scores = table.scores(features)
    assert rounded.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(rounded, want, atol=0.05, rtol=0)
    torch.testing.assert_close(-scores.gather(-1, targets[..., None])[..., 0], want)
    rounded.sum().backward()
    assert features.grad.isfinite().all()
