"""Secrets on command lines, in texts and in diffs."""

import pytest

from litscale.storage.secrets import mask_code, mask_command, mask_text


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
