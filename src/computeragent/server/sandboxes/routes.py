"""Every route of the sandbox server, in one table."""

from __future__ import annotations

from dataclasses import dataclass

from computeragent.server import bodies
from computeragent.server.endpoint import Endpoint, Handler
from computeragent.server.sandboxes import shapes
from computeragent.server.sandboxes.restoring import Restoring
from computeragent.server.sandboxes.runs import Runs
from computeragent.server.sandboxes.sandboxes import Sandboxes
from computeragent.server.sandboxes.tasks import Tasks

_CALL = "{call_id:path}"  # the ids of some engines have slashes


@dataclass(frozen=True, slots=True)
class Handlers:
    """Who answers."""

    health: Handler
    runs: Runs
    tasks: Tasks
    sandboxes: Sandboxes
    restoring: Restoring


def routes(to: Handlers) -> list[Endpoint]:
    """Every route, fixed paths before those with ids in them."""
    return [
        Endpoint("GET", "/health", to.health, "What is here", answer=shapes.ServerHealth, public=True),
        *_runs(to.runs),
        *_tasks(to.tasks),
        *_sandboxes(to.sandboxes, to.restoring),
        Endpoint(
            "GET",
            "/snapshots",
            to.restoring.listing,
            "Your snapshots",
            query=shapes.SnapshotQuery,
            answer=shapes.SnapshotList,
        ),
        Endpoint(
            "DELETE",
            "/snapshots/{snapshot_id}",
            to.restoring.delete,
            "Forget a snapshot",
            query=shapes.SnapshotQuery,
            answer=bodies.Ok,
        ),
    ]


def _runs(runs: Runs) -> list[Endpoint]:
    decide = f"/run/{{session_id}}/permission/{_CALL}"
    where = shapes.InSession
    return [
        Endpoint("POST", "/run", runs.run, "One message, streamed", body=shapes.RunRequest, stream=True),
        Endpoint("POST", decide, runs.decide, "Answer a tool call", body=bodies.Decide, answer=bodies.Ok),
        Endpoint("GET", "/artifact", runs.artifact, "A file of a live run", query=where),
        Endpoint("GET", "/workdir", runs.workdir, "The files of a live run", query=where, answer=shapes.Entries),
    ]


def _tasks(tasks: Tasks) -> list[Endpoint]:
    one = "/tasks/{task_id}"
    decide = f"{one}/permission/{_CALL}"
    accepted, listed, query = shapes.TaskAccepted, shapes.TaskList, shapes.TaskQuery
    page = shapes.TaskEvents
    return [
        Endpoint("POST", "/tasks", tasks.create, "Run behind", body=shapes.TaskRequest, answer=accepted, status=202),
        Endpoint("GET", "/tasks", tasks.listing, "Your tasks", query=query, answer=listed),
        Endpoint("GET", one, tasks.one, "A task", answer=shapes.TaskState),
        Endpoint("GET", f"{one}/events", tasks.events, "Its events", query=shapes.EventQuery, answer=page),
        Endpoint("GET", f"{one}/artifact", tasks.artifact, "A file of a live task", query=shapes.InFiles),
        Endpoint("POST", decide, tasks.decide, "Answer a tool call", body=bodies.Decide, answer=bodies.Ok),
        Endpoint("DELETE", one, tasks.delete, "Cancel or forget", answer=shapes.TaskDeleted),
    ]


def _sandboxes(sandboxes: Sandboxes, restoring: Restoring) -> list[Endpoint]:
    all_, one = "/sandboxes", "/sandboxes/{sandbox_id}"
    decide = f"{one}/permission/{_CALL}"
    opened, state, files = shapes.SandboxOpened, shapes.SandboxState, shapes.InFiles
    taken = shapes.SnapshotTaken
    return [
        Endpoint("POST", all_, sandboxes.create, "Open", body=shapes.SandboxRequest, answer=opened, status=201),
        Endpoint("GET", all_, sandboxes.listing, "Yours", answer=shapes.SandboxList),
        Endpoint(
            "POST",
            f"{all_}/restore",
            restoring.restore,
            "Bring a snapshot back",
            body=shapes.RestoreRequest,
            answer=opened,
            status=201,
        ),
        Endpoint("GET", f"{all_}/by-session/{{session_id}}", sandboxes.by_session, "A session's sandbox", answer=state),
        Endpoint("GET", one, sandboxes.one, "A sandbox", answer=state),
        Endpoint("DELETE", one, sandboxes.delete, "Dispose", query=shapes.DisposeQuery, answer=shapes.SandboxDisposed),
        Endpoint("POST", f"{one}/chat", sandboxes.chat, "One turn, streamed", body=shapes.ChatRequest, stream=True),
        Endpoint("GET", f"{one}/events", sandboxes.events, "Its events", query=bodies.After, stream=True),
        Endpoint("POST", f"{one}/cancel", sandboxes.cancel, "End the turn", answer=bodies.Ok),
        Endpoint("POST", decide, sandboxes.decide, "Answer a tool call", body=bodies.Decide, answer=bodies.Ok),
        Endpoint("POST", f"{one}/heartbeat", sandboxes.heartbeat, "Stay", answer=shapes.SandboxAlive),
        Endpoint("POST", f"{one}/snapshot", restoring.snapshot, "Keep its files", raw=True, answer=taken),
        Endpoint("GET", f"{one}/workdir", sandboxes.workdir, "Its files", query=files, answer=shapes.Entries),
        Endpoint("GET", f"{one}/artifact", sandboxes.artifact, "A file of it", query=files),
    ]
