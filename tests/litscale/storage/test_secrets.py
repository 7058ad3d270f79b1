"""Secrets on command lines, in texts and in diffs."""

import pytest

from litscale.storage.secrets import mask_code, mask_command, mask_text, mask_values, mask_yaml


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--data.hf_token", "abc", "--lr", "1"], ["--data.hf_token", "***", "--lr", "1"]),
        (["--logger.init_args.api_key=abc=1"], ["--logger.init_args.api_key=***"]),
        (["--PASSWORD", "-x", "fit"], ["--PASSWORD", "***", "fit"]),
        (["--secret-access-key", "--verbose", "true"], ["--secret-access-key", "--verbose", "true"]),
        (['--logger={"class_path": "W", "apikey": "a b"}'], ['--logger={"class_path": "W", "apikey": ***}']),
        (["WANDB_API_KEY=abc", "{secret: xyz, lr: 1}"], ["WANDB_API_KEY=***", "{secret: ***, lr: 1}"]),
        (["--hub", "https://me:abc@host/x"], ["--hub", "https://***@host/x"]),
        (["--db", "postgres://me:a@b@host/x"], ["--db", "postgres://***@host/x"]),
        (["--header", "Authorization: Bearer abc.def-1"], ["--header", "Authorization: Bearer ***"]),
        (["--pwd", "abc", "--db.pwd=abc"], ["--pwd", "***", "--db.pwd=***"]),
        (["--logger.apiKey", "abc", "--x"], ["--logger.apiKey", "***", "--x"]),
        (["--hub.accessToken=abc", "{dbPassword: a, lr: 1}"], ["--hub.accessToken=***", "{dbPassword: ***, lr: 1}"]),
        (
            ["--userAPIKey", "abc", "APIToken=abc", "s3Secret=a"],
            ["--userAPIKey", "***", "APIToken=***", "s3Secret=***"],
        ),
        (["https://a.net/x?sv=1&sig=a%2Fb&se=2"], ["https://a.net/x?sv=1&sig=***&se=2"]),
        (["s3://a/b?X-Amz-Signature=0a1b"], ["s3://a/b?X-Amz-Signature=***"]),
        # a value is all that follows
        (["--db.password=correct horse, b]c", "DB_TOKEN=a,b"], ["--db.password=***", "DB_TOKEN=***"]),
        (["{password: correct horse, keys: [{token: [a, b]}]}"], ["{password: ***, keys: [{token: ***}]}"]),
        (
            ["--env=API_KEY=a b", "--sbatch=--export=ALL,API_KEY=a"],
            ["--env=API_KEY=***", "--sbatch=--export=ALL,API_KEY=***"],
        ),
        (["--header=Authorization: Basic dXNlcjpw"], ["--header=Authorization: Basic ***"]),
        (["--x=[a", "{b: 1", "--glob=*", "--a=b: c: d"],) * 2,
        # names that only resemble them
        (["--data.tokens", "8", "--tokenizer", "a", "--monkey", "b"],) * 2,
        (["--maxTokens", "8", "--tokenCount=3", "--hotKeys", "b", "secretary: c", "x?design=1"],) * 2,
        (["--signature", "3/4", "{sig: 0.5}", "a.html?designature=1"],) * 2,
        (["fit", "--config", "configs/demo.yaml", "--trainer.max_steps=3"],) * 2,
    ],
)
def test_values_of_secrets_are_masked_on_a_command_line(words, wanted):
    assert mask_command(words) == wanted


def test_texts_and_code():
    assert mask_text("401 from https://abc@hub: token=xyz, step 3") == "401 from https://***@hub: token=***, step 3"
    code = """
-token = next(tokens)
+password: hunter2-and-more
+API_TOKEN = "abc"
+client = Client(accessToken="abc", maxTokens=12345678)
 for key in keys: token = tokens[3]
 key = "train/loss"
"""
    wanted = code.replace("hunter2-and-more", "***").replace('"abc"', "***")
    assert mask_code(code) == wanted


def test_a_config_keeps_all_but_the_secrets():
    text = """# of mine
db: &db
  password: correct horse, battery
  quoted: {token: 'it''s "all" secret', lr: 1}
api_key: |-
  first
  second
url: https://me:abc@host/x
others: &others [*db, *others, {secret: [1, 2]}]
credentials:
  user: me
last: {secret: "a\\"b", tokens: 3}
"""
    wanted = """# of mine
db: &db
  password: ***
  quoted: {token: ***, lr: 1}
api_key: ***
url: https://***@host/x
others: &others [*db, *others, {secret: ***}]
credentials:
  ***
last: {secret: ***, tokens: 3}
"""
    assert mask_yaml(text) == wanted
    assert mask_yaml("a: [b\npassword: x") == "a: [b\npassword: ***"


def test_values_keep_all_but_the_secrets():
    given = {"data": {"hub_token": "a b", "tokens": 3, "apiKey": None}, "urls": ["s3://me:b@host", 1.5], 4: True}
    wanted = {"data": {"hub_token": "***", "tokens": 3, "apiKey": None}, "urls": ["s3://***@host", 1.5], 4: True}
    assert mask_values(given) == wanted
