"""Sends the letters of the JSON in argv[1] with Django's e-mail backend, over one connection; exit 1 on an error."""

import base64
import json
import smtplib
import sys

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection

order = json.loads(sys.argv[1])
settings.configure(
    EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
    EMAIL_HOST=order["host"],
    EMAIL_PORT=order["port"],
    EMAIL_HOST_USER=order["username"],
    EMAIL_HOST_PASSWORD=order["password"],
    EMAIL_USE_TLS=order["tls"] == "starttls",
    EMAIL_USE_SSL=order["tls"] == "implicit",
    EMAIL_TIMEOUT=30,
)


def compose(letter: dict[str, str]) -> EmailMultiAlternatives:
    message = EmailMultiAlternatives(
        letter["subject"],
        letter["text"],
        f"App <{letter['sender']}>",
        [letter["to"]],
        bcc=[letter["bcc"]] if letter["bcc"] else [],
        headers=letter["headers"],
    )
    message.attach_alternative(letter["html"], "text/html")
    message.attach(letter["filename"], base64.b64decode(letter["attachment"]), "application/octet-stream")
    return message


try:
    sent = get_connection().send_messages([compose(letter) for letter in order["letters"]])
except smtplib.SMTPException as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.stdout.write(f"{sent}\n")
