"""What `import deqzoo` costs, and what it offers."""

import subprocess
import sys

import deqzoo

HEAVY = ("lightning", "torchmetrics", "huggingface_hub", "torchvision", "timm", "matplotlib", "typer", "PIL")


def test_importing_the_library_and_listing_models_imports_nothing_heavy():
    code = (
        "import sys, deqzoo; deqzoo.list_models(); deqzoo.describe('pcdeq-mnist-linear');"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_everything_that_is_promised_is_there():
    assert [name for name in deqzoo.__all__ if not hasattr(deqzoo, name)] == []
    assert callable(deqzoo.fixed_point)  # the function, not the module of that name
