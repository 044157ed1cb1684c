"""A client of the REST interface, for programs and for the command line.

    with Circadian("http://127.0.0.1:8700", key) as client:
        sleep = client.sleeps.create("nursery")
        for event in client.sleeps.watch(sleep.id):
            ...
        client.versions.promote(client.sleeps.get(sleep.id).result_version)

`AsyncCircadian` has the same resources; what returns an answer there is awaited, what returns an iterator is iterated with `async for`.
Answers keep fields that this client does not know, so that it works with newer services. Errors are ApiError (the service's own, with
`code`, `message` and `remedy`), Unreachable and Foreign. It imports neither torch nor Ray nor anything of the service.
"""

from services.client.answers import Answer as Answer
from services.client.awaiting import AsyncCircadian as AsyncCircadian
from services.client.blocking import Circadian as Circadian
from services.client.errors import ApiError as ApiError
from services.client.errors import ClientError as ClientError
from services.client.errors import Conflict as Conflict
from services.client.errors import Foreign as Foreign
from services.client.errors import Invalid as Invalid
from services.client.errors import NotAllowed as NotAllowed
from services.client.errors import NotFound as NotFound
from services.client.errors import Unavailable as Unavailable
from services.client.errors import Unreachable as Unreachable
from services.client.patience import Patience as Patience
