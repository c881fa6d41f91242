"""The two pages that the Django apps share."""

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path


def healthz(request):
    return HttpResponse("ok")


@login_required
def dashboard(request):
    return render(request, "dashboard.html")


urlpatterns = [path("healthz", healthz), path("dashboard", dashboard)]
