"""The reference of the configuration: every key with its type, default, bounds and meaning, as the code has them.

Meanings are the comments of the schema and of the classes that a `_target_` names; types, defaults and bounds are what
a run is checked by. Owns how they are found and shown. Refuses to know what a key does, and to hold a text of its own.

    for key in section_keys("train"):
        print(key.name, key.type, key.default, key.meaning)
"""

from tfscale.configuration.documented_key import Key
from tfscale.configuration.group_choices import choice_keys, choices
from tfscale.configuration.schema_keys import section_keys, sections

__all__ = ["Key", "choice_keys", "choices", "section_keys", "sections"]
