"""allauth's pages, and two more."""

import views
from django.urls import include, path

urlpatterns = [*views.urlpatterns, path("accounts/", include("allauth.urls"))]
