"""Packaging of memo-habitat: what pyproject.toml cannot say (data by another name, a .pth file)."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "memo_habitat/__init__.py").read_text())[1]

# One line, run at every start of the interpreter: it puts a finder for three names at the end of
# sys.meta_path (memo_habitat/compat/habitat_sim_stub.py, docs/troubleshooting.md). Nothing else can
# act before the untouched `habitat-baselines` command imports Habitat, which imports habitat_sim.
# The `try` keeps the interpreter quiet while the package is being removed.
PTH_NAME = "memo_habitat_stub.pth"
PTH_LINE = (
    "import sys; exec('try:\\n from memo_habitat.compat import habitat_sim_stub\\n"
    " habitat_sim_stub.install()\\nexcept ImportError:\\n pass')\n"
)
PLUGIN = "hydra_plugins/memo_habitat_plugin.py"


class BuildWithPth(build_py):
    """Copy the packages and write the .pth file beside them."""

    def run(self) -> None:
        """Build as usual, then add the file."""
        super().run()
        if not self.editable_mode:
            Path(self.build_lib, PTH_NAME).write_text(PTH_LINE)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return what is built, the .pth file included."""
        outputs = list(super().get_outputs(include_bytecode))
        return outputs if self.editable_mode else [*outputs, str(Path(self.build_lib, PTH_NAME))]


class EditableWithPth(editable_wheel):
    """An editable wheel with the .pth file, and with the plugin as a file of its own.

    Hydra 1.3 lists the folder `hydra_plugins`, which it cannot behind the import hook of an
    editable installation; the plugin is two lines that refer to the checkout.
    """

    def run(self) -> None:
        """Build as usual, then add the files to the wheel and to its list of files."""
        super().run()
        extra = {PTH_NAME: PTH_LINE.encode(), PLUGIN: (ROOT / PLUGIN).read_bytes()}
        for wheel in Path(self.dist_dir).glob(f"memo_habitat-{VERSION}-*editable*.whl"):
            add_to_wheel(wheel, extra)


def add_to_wheel(wheel: Path, extra: dict[str, bytes]) -> None:
    """Add files to a finished wheel, and their lines to its RECORD."""
    with zipfile.ZipFile(wheel) as source:
        entries = [(info, source.read(info)) for info in source.infolist()]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in extra.items():
            target.writestr(name, data)
        for info, content in entries:
            if info.filename.endswith(".dist-info/RECORD"):
                content += "".join(record_line(*item) for item in extra.items()).encode()
            target.writestr(info, content)


def record_line(name: str, data: bytes) -> str:
    """Return the line of RECORD for one file: name, digest, size."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


setup(
    name="memo-habitat",
    version=VERSION,
    description="Memo for Habitat: memory-efficient embodied agents, with the ExtObjNav task, "
    "a ray-casting simulator, homes to train in, an evaluator and a report",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.13",
    packages=[
        *find_packages(include=["memo_habitat", "memo_habitat.*"]),
        "habitat_configs",
        "hydra_plugins",
        "memo_habitat.data",
    ],
    package_dir={"memo_habitat.data": "data"},
    package_data={
        "memo_habitat": ["py.typed", "**/*.j2", "**/*.html", "**/*.css", "**/*.js", "**/*.json"],
        "habitat_configs": ["**/*.yaml"],
        "memo_habitat.data": ["**/*"],
    },
    # Each with its reason in docs/dependencies.md.
    install_requires=[
        "habitat-lab==0.3.320260507",
        "habitat-baselines==0.3.320260507",
        "torch>=2.4",
        "torchvision>=0.19",
        "hydra-core>=1.3.2",
        "omegaconf>=2.3",
        "numpy>=1.26.4",
        "opencv-python<5",
        "trimesh>=4.0",
        "embreex>=2.17.7",
        "pillow>=10.1",
        "scipy>=1.11",
        "numba>=0.58",
        "numpy-quaternion>=2022.4.3",
        "gym>=0.22,<0.23.1",
        "attrs>=22",
        "pyyaml>=6",
        "matplotlib>=3.8",
        "jinja2>=3.1",
        "tensorboard>=2.14",
        "safetensors>=0.4",
        "imageio-ffmpeg>=0.5",
        "tqdm>=4.66",
        "typer>=0.29",
        "pydantic>=2.7",
        "filelock>=4.0",
        "packaging>=23",
        "submitit>=1.5",
    ],
    extras_require={
        "gymnasium": ["gymnasium>=0.29"],
        "gltf": ["DracoPy>=1.4", "opengl-basisu>=0.1.0a2"],
        "hub": ["huggingface-hub>=1.0"],
        "labyrinth": ["labmaze>=1.0.6"],
        "onnx": ["torch>=2.6", "onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"],
        "timm": ["timm>=1.0.12"],
        "wandb": ["wandb>=0.17"],
        "dev": [
            "gymnasium>=0.29",
            "huggingface-hub>=1.0",
            "onnx>=1.17",
            "onnxscript>=0.5",
            "onnxruntime>=1.20",
            "timm>=1.0.12",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.10",
            "pre-commit>=3.7",
        ],
    },
    entry_points={
        "console_scripts": ["memo-habitat = memo_habitat.cli.main:main"],
        # Gymnasium before 1.0 only; later ones have no plugins (tasks/dark_key/__init__.py).
        "gymnasium.envs": ["memo_habitat = memo_habitat.tasks.dark_key:register"],
        # Hydra 1.4 and later; earlier ones scan the namespace package hydra_plugins.
        "hydra.plugins": ["memo_habitat = hydra_plugins.memo_habitat_plugin:MemoHabitatSearchPath"],
    },
    cmdclass={"build_py": BuildWithPth, "editable_wheel": EditableWithPth},
    zip_safe=False,
)
