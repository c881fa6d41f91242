"""drfpasswordless's routes, one that tells who is signed in, and one to wait for."""

import views
from django.urls import include, path
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response


@api_view()
@permission_classes([IsAuthenticated])
def me(request):
    return Response({"email": request.user.email})


urlpatterns = [*views.urlpatterns, path("", include("drfpasswordless.urls")), path("me", me)]
