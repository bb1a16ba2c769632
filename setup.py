"""Everything is read from settings.ini, the one source of truth."""

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
extras = {key.removesuffix("_requirements"): settings[key].split() for key in settings if key.endswith("_requirements")}
extras["docs"] += extras["book"]
extras["dev"] += extras["docs"] + extras["dask"] + extras["desk"] + extras["sims"]
readme = Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else ""
source = f"{settings['git_url']}/blob/{settings['branch']}/"

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=re.sub(r"\]\((?!\w+:|#)", f"]({source}", readme),  # links that also work on the page of the index
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    project_urls={"Documentation": settings["doc_host"] + settings["doc_baseurl"], "Source": settings["git_url"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        f"Intended Audience :: {settings['audience']}",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    keywords=settings["keywords"].split(),
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    # The chapters and the example data live at the top of the repository and travel inside the package.
    packages=["selectormlp", "selectormlp.chapters", "selectormlp.example_data"],
    package_dir={"selectormlp.chapters": "nbs", "selectormlp.example_data": "data"},
    package_data={
        "selectormlp": ["py.typed"],
        "selectormlp.chapters": ["*", "guides/*", "teaching/*"],
        "selectormlp.example_data": ["*", "*/*", "*/*/*"],
    },
    entry_points={
        "console_scripts": settings["console_scripts"].split(),
        "nbdev": [f"{settings['lib_name']}={settings['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
