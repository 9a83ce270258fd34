"""django-ca as a responder with its cache, on others' certificates and answers; its own Python runs it.

As a program it fills its database from `peer.json` (`status_peers`); as a module it is what Granian serves.
"""

import json
import os
import sys
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import django
from cryptography import x509
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

_HERE = Path(__file__).parent
SECRET_KEY = "of a bench"  # noqa: S105 - it lives as long as the bench
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "django_ca_peer"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django_object_actions", "django_ca",
]  # fmt: skip
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _HERE / "peer.sqlite"}}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ.get("DJANGO_CA_PEER_CACHE", ""),
    }
}
CA_OCSP_RESPONSE_CACHE_EXPIRES = timedelta(hours=8)
CA_OCSP_RESPONSE_CACHE_RENEWAL = timedelta(hours=1)
CA_DEFAULT_HOSTNAME = "peer.example"
CA_USE_CELERY = False


def _fill(told: dict[str, object]) -> str:
    # Models exist once Django is set up.
    from django_ca.models import Certificate, CertificateAuthority  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    authority = CertificateAuthority(name="peer", key_backend_alias="default", key_backend_options={})
    authority.update_certificate(x509.load_der_x509_certificate(b64decode(told["authority"])))
    authority.save()
    ends, rows = datetime.now(UTC) + timedelta(hours=8), []
    for der, answer in told["certificates"]:
        row = Certificate(ca=authority, ocsp_response=b64decode(answer), ocsp_response_expires=ends)
        row.update_certificate(x509.load_der_x509_certificate(b64decode(der)))
        rows.append(row)
    Certificate.objects.bulk_create(rows, batch_size=500)
    return authority.serial


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_ca_peer")
if __name__ == "__main__":
    django.setup()
    sys.stdout.write(_fill(json.loads((_HERE / "peer.json").read_text())))
elif os.environ.get("DJANGO_CA_PEER_SERVES"):
    from django.urls import include, path

    django.setup()
    urlpatterns = [path("django_ca/", include("django_ca.urls"))]
    application = get_wsgi_application()
