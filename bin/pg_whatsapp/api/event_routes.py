"""Operations on events: reading the feed, and the URLs that it is pushed to."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID, uuid4

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from pg_whatsapp import standard_webhooks
from pg_whatsapp.api import event_models as told
from pg_whatsapp.api.bodies import Route
from pg_whatsapp.api.documents import operation
from pg_whatsapp.api.routes import Cursor, answer, service_of
from pg_whatsapp.event_subscriptions import SECRET_NAME

router = APIRouter(route_class=Route)
Consumer = Annotated[
    str, Path(min_length=1, max_length=200, description="Any name; each reads all events once.")
]


@router.get("/events/{consumer}", tags=["events"], **operation("read", told.Events, 404))
async def read_events(
    request: Request, consumer: Consumer, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """New messages, statuses and assignments after what the consumer has acknowledged; at most 1,000.

    Reading again gives the same until they are acknowledged.
    """
    done = await service_of(request).call(
        request, "read", "SELECT get_wa_events(%s, %s)::text", consumer, limit
    )
    return answer(request, done)


@router.post("/events/{consumer}/ack", tags=["events"], **operation("read", told.Acknowledged, 404))
async def acknowledge_events(
    request: Request, consumer: Consumer, acknowledgement: told.Acknowledgement
) -> Response:
    """Say that all events up to a position are dealt with."""
    done = await service_of(request).call(
        request,
        "read",
        "SELECT jsonb_build_object('position', ack_wa_events(%s, %s))::text",
        consumer,
        acknowledgement.position,
    )
    return answer(request, done)


@router.get("/event-subscriptions", tags=["events"], **operation("admin", told.Subscriptions))
async def list_subscriptions(request: Request) -> Response:
    """The URLs that events are pushed to, and whether they get there."""
    done = await service_of(request).call(request, "admin", "SELECT list_wa_event_subscriptions()::text")
    return answer(request, done)


@router.post(
    "/event-subscriptions", tags=["events"], **operation("admin", told.NewSubscription, 409, status=201)
)
async def create_subscription(request: Request, wish: told.SubscriptionWish) -> Response:
    """Push events to a URL from now on. The answer alone tells the secret that signs them."""
    service = service_of(request)
    box = service.box()
    organization = orjson.loads(
        await service.call(request, "admin", "SELECT to_jsonb(current_wa_organization())::text")
    )
    made, secret = uuid4(), standard_webhooks.make_secret()
    sealed = box.seal(organization, SECRET_NAME, str(made), secret)
    await service.call(
        request,
        "admin",
        "SELECT create_wa_event_subscription(%s, %s, %s, %s, %s, %s)::text",
        made,
        wish.url,
        wish.kinds,
        sealed.ciphertext,
        sealed.key_id,
        sealed.fingerprint,
    )
    return answer(request, orjson.dumps({"id": made, "secret": secret}), 201)


@router.get(
    "/event-subscriptions/{subscription_id}", tags=["events"], **operation("admin", told.Subscription, 404)
)
async def get_subscription(request: Request, subscription_id: UUID) -> Response:
    """A URL that events are pushed to, and whether they get there."""
    done = await service_of(request).call(
        request, "admin", "SELECT get_wa_event_subscription(%s)::text", subscription_id
    )
    return answer(request, done)


@router.patch(
    "/event-subscriptions/{subscription_id}", tags=["events"], **operation("admin", told.Subscription, 404)
)
async def change_subscription(
    request: Request, subscription_id: UUID, change: told.SubscriptionChange
) -> Response:
    """Another URL, for what waits too, or other kinds of events, for what comes."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT get_wa_event_subscription(%s)::text FROM change_wa_event_subscription(%s, %s, %s)",
        subscription_id,
        subscription_id,
        change.url,
        change.kinds,
    )
    return answer(request, done)


@router.delete(
    "/event-subscriptions/{subscription_id}", tags=["events"], **operation("admin", told.Deleted, 404)
)
async def delete_subscription(request: Request, subscription_id: UUID) -> Response:
    """End a subscription, with its secrets and the list of its deliveries."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT jsonb_build_object('id', %s::uuid)::text FROM delete_wa_event_subscription(%s)",
        subscription_id,
        subscription_id,
    )
    return answer(request, done)


@router.post(
    "/event-subscriptions/{subscription_id}/pause",
    tags=["events"],
    **operation("admin", told.Subscription, 404),
)
async def pause_subscription(request: Request, subscription_id: UUID) -> Response:
    """Push nothing more for now; what happens meanwhile is pushed when it is resumed."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT get_wa_event_subscription(%s)::text FROM pause_wa_event_subscription(%s)",
        subscription_id,
        subscription_id,
    )
    return answer(request, done)


@router.post(
    "/event-subscriptions/{subscription_id}/resume",
    tags=["events"],
    **operation("admin", told.Subscription, 404),
)
async def resume_subscription(
    request: Request, subscription_id: UUID, resumption: told.Resumption | None = None
) -> Response:
    """Push again to one that was paused, disabled or gone: all that happened meanwhile, or from now on."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT get_wa_event_subscription(%s)::text FROM resume_wa_event_subscription(%s, %s)",
        subscription_id,
        subscription_id,
        resumption.from_now if resumption else False,
    )
    return answer(request, done)


@router.post(
    "/event-subscriptions/{subscription_id}/rotate",
    tags=["events"],
    **operation("admin", told.NewSecret, 404),
)
async def rotate_secret(
    request: Request, subscription_id: UUID, rotation: told.Rotation | None = None
) -> Response:
    """Sign with a new secret from now on, and with the former one beside it for some hours."""
    service = service_of(request)
    box = service.box()
    organization = orjson.loads(
        await service.call(request, "admin", "SELECT to_jsonb(current_wa_organization())::text")
    )
    secret = standard_webhooks.make_secret()
    sealed = box.seal(organization, SECRET_NAME, str(subscription_id), secret)
    until = await service.call(
        request,
        "admin",
        "SELECT to_jsonb(rotate_wa_event_secret(%s, %s, %s, %s, make_interval(secs => %s)))::text",
        subscription_id,
        sealed.ciphertext,
        sealed.key_id,
        sealed.fingerprint,
        (rotation or told.Rotation.model_validate({})).overlap_hours * 3600,
    )
    return answer(request, orjson.dumps({"secret": secret, "former_valid_until": orjson.loads(until)}))


@router.post(
    "/event-subscriptions/{subscription_id}/test",
    tags=["events"],
    **operation("admin", told.Tested, 404, 409, status=202, description="Asked for."),
)
async def test_subscription(request: Request, subscription_id: UUID) -> Response:
    """Push a test event; its delivery tells what was answered."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT jsonb_build_object('event_id', test_wa_event_subscription(%s))::text",
        subscription_id,
    )
    return answer(request, done, 202)


@router.post(
    "/event-subscriptions/{subscription_id}/resend",
    tags=["events"],
    **operation("admin", told.Resent, 404, 409, status=202, description="Asked for."),
)
async def resend_deliveries(
    request: Request, subscription_id: UUID, wish: told.ResendWish | None = None
) -> Response:
    """Push events again: those with these ids, or all that failed, under the ids that they had."""
    wish = wish or told.ResendWish.model_validate({})
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT jsonb_build_object('deliveries', resend_wa_event_deliveries(%s, %s::bigint[], %s))::text",
        subscription_id,
        wish.event_ids,
        wish.since,
    )
    return answer(request, done, 202)


@router.get(
    "/event-subscriptions/{subscription_id}/deliveries",
    tags=["events"],
    **operation("admin", told.Deliveries, 404),
)
async def list_deliveries(
    request: Request,
    subscription_id: UUID,
    state: Literal["waiting", "sending", "delivered", "failed"] | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Cursor = None,
) -> Response:
    """What became of events at a URL, the latest first; at most 500 a page."""
    done = await service_of(request).call(
        request,
        "admin",
        "SELECT list_wa_event_deliveries(%s, %s, %s, %s)::text",
        subscription_id,
        state,
        limit,
        cursor,
    )
    return answer(request, done)
