"""Everything is read from settings.ini, the one source of truth."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
book, dask = (settings[f"{name}_requirements"].split() for name in ("book", "dask"))

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    keywords=settings["keywords"].split(),
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={
        "book": book,
        "peers": settings["peers_requirements"].split(),
        "scanvi": settings["scanvi_requirements"].split(),
        "dask": dask,
        "dev": settings["dev_requirements"].split() + book + dask,
    },
    # The chapters and the example data live at the top of the repository and travel inside the package.
    packages=["selectormlp", "selectormlp.chapters", "selectormlp.example_data"],
    package_dir={"selectormlp.chapters": "nbs", "selectormlp.example_data": "data"},
    package_data={
        "selectormlp": ["py.typed"],
        "selectormlp.chapters": ["*.ipynb", "_quarto.yml", "*.css", "*.svg", "*.png"],
        "selectormlp.example_data": [
            *("README.md", "*.h5ad"),
            *("report/*", "example_workflow/*", "studies/*/*", "faults/*"),
        ],
    },
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "nbdev": [f"{settings['lib_name']}={settings['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
