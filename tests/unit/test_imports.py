"""How the Python modules hang together. Imports for types only and those inside functions count too."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_imports_form_no_circle() -> None:
    graph = grimp.build_graph("pg_whatsapp", "wa_simulator", cache_dir=None)
    assert {"pg_whatsapp.cli", "wa_simulator.app"} <= graph.modules
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()


def test_of_the_product_only_the_command_imports_the_simulator() -> None:
    graph = grimp.build_graph("pg_whatsapp", "wa_simulator", cache_dir=None)
    simulator = {"wa_simulator", *graph.find_descendants("wa_simulator")}
    importers = {
        module
        for module in graph.modules - simulator
        if graph.find_modules_directly_imported_by(module) & simulator
    }
    assert importers == {"pg_whatsapp.cli"}


def test_no_provider_is_known_by_name_outside_its_module() -> None:
    """One more is one more file: what differs is asked of PROVIDERS."""
    graph = grimp.build_graph("pg_whatsapp", cache_dir=None)
    modules = {
        module
        for module in graph.find_children("pg_whatsapp.providers")
        if module.rpartition(".")[2] in ("meta", "d360", "twilio")
    }
    assert len(modules) == 3
    importers = {
        module for module in graph.modules if graph.find_modules_directly_imported_by(module) & modules
    }
    # What one provider took over from another.
    assert importers <= modules
