FROM python:3.11-slim
WORKDIR /app
COPY constraints.txt pyproject.toml README.md ./
# The CPU build; for a GPU build the image with a CUDA torch and leave this out.
RUN pip install --no-cache-dir -c constraints.txt torch
COPY converters converters
COPY sam2_model sam2_model
COPY backend backend
RUN pip install --no-cache-dir -c constraints.txt '.[hub]' \
    && useradd --create-home annotator
USER annotator
EXPOSE 9090
HEALTHCHECK CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/health', timeout=2)"
CMD ["sam2-label-studio", "serve", "--host", "0.0.0.0", "--port", "9090"]
