"""How the templates of an account are read and submitted: as at Meta, unless a provider says otherwise."""

from __future__ import annotations

from typing import Any, NamedTuple

FIELDS = (
    "name,language,status,category,sub_category,quality_score,components,parameter_format,rejected_reason,"
    "previous_category,correct_category,message_send_ttl_seconds"
)
PAGE = 100
#: The subcode with which Meta says that a template of this name and language is there.
ALREADY_THERE = 2388024


class TemplatePage(NamedTuple):
    """Some of an account's templates, as the Cloud API lists them."""

    #: Each may have an "account": whose it is, where the provider says so.
    templates: list[dict[str, Any]]
    #: Where the next page begins.
    after: str | None
    is_last: bool


class Templates:
    """Paths and answers of the Cloud API."""

    #: Where they are, if elsewhere than the rest of the provider's API.
    base_url: str | None = None

    def listing(self, waba_id: str, after: str | None, name: str | None) -> tuple[str, dict[str, str]]:
        """Path and query of a page; with a name, of the templates that have it, or more than that."""
        query = {"fields": FIELDS, "limit": str(PAGE)}
        query |= {"after": after} if after else {}
        query |= {"name": name} if name else {}
        return f"{waba_id}/message_templates", query

    def page(self, answer: dict[str, Any], after: str | None) -> TemplatePage:
        """A page of an answer; after: where it began."""
        paging = answer.get("paging", {})
        return TemplatePage(
            answer.get("data", []), paging.get("cursors", {}).get("after"), "next" not in paging
        )

    def submission(self, waba_id: str, provider_id: str | None) -> str | None:
        """The path that takes a new template, or another text of one; None where none does."""
        return provider_id or f"{waba_id}/message_templates"

    def canonical(self, answer: dict[str, Any], status: int) -> dict[str, Any]:
        """An answer as the Cloud API would give it; of a list only what went wrong."""
        return answer
