# Copyright: (c) The Croft authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the collection importable under its own name from wherever it lies."""

from __future__ import annotations

import pathlib
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parents[2]


def package(name, path=None):
    module = types.ModuleType(name)
    module.__path__ = [str(path)] if path else []
    sys.modules.setdefault(name, module)


package("ansible_collections")
package("ansible_collections.croft")
package("ansible_collections.croft.fleet", ROOT)
package("ansible_collections.croft.fleet.plugins", ROOT / "plugins")
for kind in ("filter", "inventory", "modules", "module_utils"):
    package("ansible_collections.croft.fleet.plugins." + kind, ROOT / "plugins" / kind)
