"""Makes the site of README, docs, results and notebooks (a hook of mkdocs, see mkdocs.yml).

The site has the paths of the repository, so a relative link between two pages is right on GitHub and in the site. A
file of the repository that a page links to and that is no page itself is copied.
"""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")
"""Pages outside of docs/."""
LINK = re.compile(r"\]\(([^)#:\s]+)[^)]*\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give each page of docs/ its path in the repository, and add the other pages, notebooks and what they link to."""
    own = [file for file in files if file.src_dir == config.docs_dir]
    paths = [PurePosixPath("docs", file.src_uri) for file in own if not file.inclusion.is_excluded()]
    paths += map(PurePosixPath, OUTSIDE)
    content = {path: (ROOT / path).read_text() for path in paths if path.suffix == ".md"}
    for path in [path for path in paths if path.suffix == ".ipynb"]:
        content[path.with_suffix(".md")] = notebook_page(json.loads((ROOT / path).read_text()), path.name)
    linked = {
        ROOT.joinpath(page.parent, target).resolve().relative_to(ROOT).as_posix()
        for page, text in content.items()
        for target in LINK.findall(text)
    }
    shown = {path.as_posix() for path in paths} | {target for target in linked if (ROOT / target).is_file()}
    pages = [File.generated(config, path.as_posix(), content=text) for path, text in content.items()]
    others = sorted(shown - {page.src_uri for page in pages})
    copies = [File.generated(config, name, abs_src_path=str(ROOT / name)) for name in others]
    return Files([*(file for file in files if file not in own), *pages, *copies])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks lead to their pages."""
    return re.sub(r"\]\(([^):\s]+)\.ipynb\)", r"](\1.md)", markdown)


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """Return a notebook as Markdown: its texts, its code, and what the code printed and drew."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                image = "".join(data["image/png"]).replace("\n", "")
                parts.append(f'<img alt="What the code above draws" src="data:image/png;base64,{image}">')
            elif printed := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join([*parts, f"[Download this notebook](./{name})"])
