"""Small pairs of draft and target with random weights."""

import torch

from litscale.models.var import VAR, VQVAE

LABELS = [3, 0, -1, 4, 3]


def vqvae(patch_nums=(1, 2, 3, 4), vocab=16, seed=0, multipliers=(1, 1)):
    """A tokenizer whose codes are far apart, so that tokens matter."""
    torch.manual_seed(seed)
    tokenizer = VQVAE(patch_nums, vocab=vocab, dim=8, channels=32, multipliers=multipliers, blocks=1)
    torch.nn.init.normal_(tokenizer.quantizer.codebook.weight)
    return tokenizer.eval()


def transformer(tokenizer, seed=0, std=0.2, **options):
    """A network with all weights redrawn, so that everything matters."""
    torch.manual_seed(seed)
    model = VAR(tokenizer, **{"num_classes": 5, "depth": 2, "width": 32, "heads": 2} | options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def blurred(target, share, seed=1, **options):
    """A draft like the target, with noise on all weights; the more, the less they agree."""
    draft = transformer(target.vqvae, **options)
    draft.load_state_dict(target.state_dict())
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter += share * torch.randn_like(parameter)
    return draft


def pair(share=0.03, patch_nums=(1, 2, 3, 4), vocab=16, **options):
    """Draft and target that agree on some scales."""
    target = transformer(vqvae(patch_nums, vocab), **options)
    return blurred(target, share, **options), target


def uniform_draft(target):
    """A draft that draws uniformly."""
    draft = transformer(target.vqvae, seed=9)
    with torch.no_grad():
        draft.head.weight.zero_()
        draft.head.bias.zero_()
    return draft


def same(first, second):
    """Whether two lists of tokens are equal."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
