"""All metadata of the distribution `visreg`. pyproject.toml names only the build system and the tools."""

from pathlib import Path

from setuptools import setup


HERE = Path(__file__).parent

# Public import name -> folder. `training` and `hub_cards` are too general for somebody's site-packages.
ROOTS = {
    "modeling_visreg": "modeling_visreg",
    "visreg_training": "training",
    "visreg_hub_cards": "hub_cards",
}


EXPORT = ["onnx>=1.23", "onnxscript>=0.7", "onnxruntime>=1.23.2"]  # the last onnxruntime for Python 3.10
LORA = ["peft>=0.18"]  # the first for transformers 5


def packages() -> list[str]:
    """Dotted import names of every package below the roots."""
    return [
        ".".join([name, *init.parent.relative_to(HERE / folder).parts])
        for name, folder in ROOTS.items()
        for init in sorted((HERE / folder).rglob("__init__.py"))
    ]


setup(
    name="visreg",
    version="0.1.0",
    description="VISReg for Hugging Face: self-supervised ViTs without teacher, EMA, stop-gradient or masking",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=packages(),
    package_dir=ROOTS,
    package_data={
        "modeling_visreg": ["py.typed"],
        "visreg_training": ["py.typed", "recipes/*.yaml", "recipes/*/*"],
        "visreg_hub_cards": ["py.typed", "templates/*"],
    },
    # Lower bounds: `make test-oldest` runs the suite with exactly these (constraints-oldest.txt); constraints.txt pins
    # what CI uses. Beside each, what is missing or wrong below it.
    install_requires=[
        "torch>=2.6",  # torch.accelerator; export to ONNX and compiling need 2.8
        "torchvision>=0.21",  # the one of torch 2.6
        "transformers>=5.12",  # up to 5.11 a backbone gets no hidden states, nor the attention its arguments
        "accelerate>=1.6",  # is_fsdp2
        "datasets>=5.0",  # one bad row group costs a whole shard in 4.8; no reshard in 4.5
        "huggingface_hub>=1.5",  # what transformers 5.12 asks for; those up to 5.17 refuse 2.0
        "safetensors>=0.5",  # older: not tried
        "evaluate>=0.4.3",  # older: not tried
        "numpy>=2.0",  # older: not tried
        "scipy>=1.13",  # the first for numpy 2
        "pyarrow>=21.0",  # what datasets 5.0 asks for
        "pillow>=11.3",  # AVIF; files that are no images count as corrupt in 11.0
        "pyyaml>=6.0.1",  # older: no wheels for Python 3.12
        "jinja2>=3.1.2",  # older: not tried
        "matplotlib>=3.9",  # the first for numpy 2
        "scikit-learn>=1.5",  # the first for numpy 2
        "tqdm>=4.66.3",  # what datasets 5.0 asks for
    ],
    extras_require={
        "export": EXPORT,
        "lora": LORA,
        "visualize": ["umap-learn>=0.5.9"],
        "test": [
            "pytest>=9.2",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "ruff>=0.17",
            "mypy>=2.4",
            "timm>=1.0.29",
            "markdown-it-py>=4.2",
            "selenium>=4.51",
            "tensorboardX>=2.6.5",
            *EXPORT,
            *LORA,
        ],
        "space": ["gradio>=6.31"],
        "bench": ["lightly==1.6.0"],
    },
    entry_points={"console_scripts": ["visreg = visreg_training.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
