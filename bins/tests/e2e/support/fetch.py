"""Does what curl does with some of its options, by the libcurl that pycurl brings: --proxy-http2 needs curl 8.1."""

import argparse
import os
import sys

import pycurl

# CURLPROXY_HTTPS2, for which pycurl has no name.
HTTPS2 = 3



def pass_on(piece):
    """Writes it as soon as it has come."""
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--proxy", required=True)
parser.add_argument("--proxy-http2", action="store_true")
parser.add_argument("--proxytunnel", action="store_true")
parser.add_argument("--proxy-cacert")
parser.add_argument("--proxy-cert")
parser.add_argument("--proxy-key")
parser.add_argument("--upload-file")
words = parser.parse_args()

curl = pycurl.Curl()
curl.setopt(pycurl.URL, words.url)
curl.setopt(pycurl.PROXY, words.proxy)
curl.setopt(pycurl.NOPROXY, "")
curl.setopt(pycurl.TIMEOUT, 25)
curl.setopt(pycurl.WRITEFUNCTION, pass_on)
if words.proxy_http2:
    curl.setopt(pycurl.PROXYTYPE, HTTPS2)
if words.proxytunnel:
    curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
for option, value in [
    (pycurl.PROXY_CAINFO, words.proxy_cacert),
    (pycurl.PROXY_SSLCERT, words.proxy_cert),
    (pycurl.PROXY_SSLKEY, words.proxy_key),
]:
    if value:
        curl.setopt(option, value)
if words.upload_file:
    curl.setopt(pycurl.UPLOAD, 1)
    curl.setopt(pycurl.READDATA, open(words.upload_file, "rb"))
    curl.setopt(pycurl.INFILESIZE, os.path.getsize(words.upload_file))
    # Nobody is to be waited for.
    curl.setopt(pycurl.HTTPHEADER, ["Expect:"])
try:
    curl.perform()
except pycurl.error as error:
    code, text = error.args
    print(f"curl: ({code}) {text}", file=sys.stderr)
    sys.exit(code)
