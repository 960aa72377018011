import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys
import converters
names = [m.name for m in pkgutil.walk_packages(converters.__path__, "converters.")]
for name in names:
    importlib.import_module(name)
assert len(names) >= 13, names
ours = {"backend", "sam2_model"}
print(sorted(m for m in sys.modules if m.split(".")[0] in {"torch", "flask"} | ours))
"""


def test_converters_load_neither_torch_nor_flask_nor_our_other_packages():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
