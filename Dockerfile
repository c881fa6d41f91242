# Vestibule in a container: settings are environment variables, what must be kept is in /data.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# Before the code, so that a change of code installs nothing.
COPY requirements.txt ./
RUN pip install -r requirements.txt

COPY main.py manage.py ./
COPY auth auth
COPY templates templates
COPY utils utils
# Who runs it may not write here, so each start would compile all of it anew.
RUN python -m compileall -q .

# DATA_DIR is `data` in the working directory unless a platform mounts a volume elsewhere; here that is
# /data. A link and not a variable: DATA_DIR as a variable would win over the platform's volume.
# No VOLUME instruction: Railway refuses to build with one. Mount /data when you run the image.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin vestibule \
    && install -d -o vestibule -g vestibule -m 0700 /data \
    && ln -s /data data
USER 10001:10001

EXPOSE 5001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, http.client as h; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 5001), timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]

# The exec form: Python is process 1 and gets SIGTERM itself.
CMD ["python", "main.py"]
