"""Manifests as YAML that people read: in their own order, without anchors, and texts of several lines as they are.

Texts with {{...}}, in whose place Argo writes a value, stand in quotation marks, so that most values stay one text.
"""

from __future__ import annotations

from tfscale.k8s.metadata import Manifest


def yaml_of(manifest: Manifest) -> str:
    """One document."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # anchors are YAML that people stumble over
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else '"' if "{{" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump(manifest, Dumper=Dumper, sort_keys=False, width=120)
