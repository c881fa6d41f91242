"""A form's target that mails a link, sesame's own view behind the link, and two more pages."""

import views
from django.contrib.auth import get_user_model
from django.core.mail import send_mail
from django.http import HttpResponse
from django.urls import path
from sesame.utils import get_query_string
from sesame.views import LoginView


def ask(request):
    user = get_user_model().objects.filter(email=request.POST["email"]).first()
    if user:
        link = request.build_absolute_uri("/link") + get_query_string(user)
        text = f"Sign in with this link:\n\n{link}\n\nIt works for 15 minutes, once.\n"
        send_mail("Your link to sign in", text, None, [user.email])
    return HttpResponse("Look into your mail.")


urlpatterns = [*views.urlpatterns, path("ask", ask), path("link", LoginView.as_view())]
