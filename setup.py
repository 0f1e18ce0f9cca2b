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


EXPORT = ["onnx>=1.23", "onnxscript>=0.7", "onnxruntime>=1.32"]
SEARCH = ["faiss-cpu>=1.15"]


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
    python_requires=">=3.11",
    packages=packages(),
    package_dir=ROOTS,
    package_data={
        "visreg_training": ["recipes/*.yaml", "recipes/*/*", "evaluation/metrics/*/*.py"],
        "visreg_hub_cards": ["templates/*"],
    },
    # The lower bounds are the versions that the suite was run with; constraints.txt pins what CI uses.
    install_requires=[
        "torch>=2.14",
        "torchvision>=0.29",
        "transformers>=5.23",
        "accelerate>=1.15",
        "datasets>=5.2",
        "huggingface_hub>=2.4",
        "safetensors>=0.8",
        "evaluate>=0.4.6",
        "numpy>=2.2",
        "pillow>=12.3",
        "pyyaml>=6.0",
        "jinja2>=3.1",
        "matplotlib>=3.10",
        "scikit-learn>=1.7",
        "tqdm>=4.67",
    ],
    extras_require={
        "export": EXPORT,
        "search": SEARCH,
        "visualize": ["umap-learn>=0.5.9"],
        "test": [
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "ruff>=0.17",
            "timm>=1.0.31",
            "markdown-it-py>=4.2",
            "selenium>=4.51",
            "tensorboardX>=2.6.5",
            *EXPORT,
            *SEARCH,
        ],
        "space": ["gradio>=6.31"],
        "bench": ["lightly==1.6.0"],
    },
    entry_points={"console_scripts": ["visreg = visreg_training.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
