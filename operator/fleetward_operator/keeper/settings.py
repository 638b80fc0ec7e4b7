"""What the keeper is told."""

from dataclasses import dataclass

from fleetward.resources.names import ADMISSION, HUB_SERVICE, INJECTION_LABEL, OPERATOR, SYSTEM_NAMESPACE
from fleetward_operator.kube.objects import Body

MANAGED = {"app.kubernetes.io/managed-by": "fleetward", "app.kubernetes.io/part-of": "fleetward"}
"""The labels of what the keeper makes, and by which it knows its own."""


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """What the keeper is told. Raises ValueError for an `admission_url` that the API server would not take."""

    webhook_image: str
    """The image of the decision webhook that is injected. Any tag or digest of its repository passes admission."""
    other_repositories: tuple[str, ...] = ()
    """More repositories whose images pass, for clusters that rewrite images to a mirror: `mirror.example/fleetward`."""
    namespace: str = SYSTEM_NAMESPACE
    excluded_namespaces: tuple[str, ...] = ()
    """Namespaces left alone besides kube-system and our own."""
    admission_url: str = ""
    """Where the admission webhook listens, outside of the cluster: `https://10.0.0.1:9443`. Left out: its Service."""
    operator_user: str = ""
    """The user name the API server knows the operator by; left out: its service account's."""
    hub_names: tuple[str, ...] = ()
    """More DNS names and IP addresses for the hub's certificate."""
    admission_names: tuple[str, ...] = ()
    """More DNS names and IP addresses for the admission webhook's certificate."""
    period: float = 30.0
    """Seconds between looks at everything, where nothing wakes the keeper."""
    proof_grace: float = 60.0
    """Seconds for which validation may fail to refuse a bad object before it blocks nobody any more."""

    def __post_init__(self) -> None:
        """Check what the API server would refuse later."""
        url = self.admission_url
        if url and (not url.startswith("https://") or "?" in url or "#" in url or "@" in url):
            raise ValueError(
                f"admission_url: {url!r} must be https://HOST[:PORT][/PATH], with no user, query or fragment"
            )

    @property
    def user(self) -> str:
        """The operator's user name."""
        return self.operator_user or f"system:serviceaccount:{self.namespace}:{OPERATOR}"

    @property
    def hub_certificate_names(self) -> tuple[str, ...]:
        """What the hub's certificate is for."""
        return (*_service_names(HUB_SERVICE, self.namespace), *self.hub_names)

    @property
    def admission_certificate_names(self) -> tuple[str, ...]:
        """What the admission webhook's certificate is for."""
        return (*_service_names(ADMISSION, self.namespace), *self.admission_names)

    @property
    def repositories(self) -> tuple[str, ...]:
        """Repositories whose images may be the decision webhook in a pod."""
        return tuple(dict.fromkeys((repository(self.webhook_image), *map(repository, self.other_repositories))))

    @property
    def governed_namespaces(self) -> Body:
        """A namespaceSelector for where pods are governed."""
        excluded = sorted({"kube-system", self.namespace, *self.excluded_namespaces})
        return {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded},
                {"key": INJECTION_LABEL, "operator": "NotIn", "values": ["disabled"]},
            ]
        }


def repository(image: str) -> str:
    """Give an image's name without tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def _service_names(service: str, namespace: str) -> tuple[str, ...]:
    name = f"{service}.{namespace}"
    return (f"{name}.svc", f"{name}.svc.cluster.local", name, service)
