"""What the tests of manifests share: the real schemas."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture(scope="session")
def validate():
    """The problems that the schemas find in a manifest."""
    file = SHARED / "tools" / "validate_manifests.py"
    if not file.exists():
        pytest.skip("no schemas of custom resources here")
    loaded = importlib.util.spec_from_file_location("validate_manifests", file)
    assert loaded is not None and loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    from kubernetes_validate import utils

    crds = module.load_crds(SHARED / "crds")
    strict, made = module.strict, {}

    def strict_once(schema, root=False):
        """A custom resource's schema is made once, not for every manifest."""
        if not root:
            return strict(schema)
        return made[id(schema)] if id(schema) in made else made.setdefault(id(schema), strict(schema, root=True))

    module.strict = strict_once
    utils.schema_contents = functools.cache(utils.schema_contents)  # else megabytes of JSON for every manifest

    def problems(manifest) -> list[str]:
        found, how = module.check(manifest, crds, "1.36")
        assert how != "none"
        return found

    return problems
