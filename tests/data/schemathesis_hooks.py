# What a JSON schema cannot say: a string of format byte is an image file in base64.
import schemathesis
import web_stub
from hypothesis import strategies as st

schemathesis.openapi.format("byte", st.sampled_from([web_stub.b64(1, 1), web_stub.b64(30, 20)]))
