"""How the Python modules hang together. Imports for types only and those inside functions count too."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_imports_form_no_circle() -> None:
    graph = grimp.build_graph("pg_whatsapp", cache_dir=None)
    assert len(graph.modules) > 40, "it reads the package"
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()


def test_of_the_product_only_the_command_imports_the_simulator() -> None:
    graph = grimp.build_graph("pg_whatsapp", cache_dir=None)
    simulator = {"pg_whatsapp.simulator", *graph.find_descendants("pg_whatsapp.simulator")}
    importers = {
        module
        for module in graph.modules - simulator
        if graph.find_modules_directly_imported_by(module) & simulator
    }
    assert importers == {"pg_whatsapp.cli"}
