"""What an encoder does that its architecture's name does not tell: found by asking it, before anything is trained."""

import torch
from transformers import PreTrainedModel

_LARGEST_CHANGE = 1e-3  # of a logit; encoders that heed the attention mask stay below 1e-5


def check_first_token(encoder: PreTrainedModel) -> None:
    """Make sure that the first token's state tells texts apart that start alike.

    Raises:
        ValueError: it does not, since tokens see those before them alone, as in decoders.

    """
    one, other = two_tokens(encoder)
    ids_bt = torch.tensor([[one, one], [one, other]], device=encoder.device)
    with torch.no_grad():
        alike, unlike = encoder(input_ids=ids_bt, attention_mask=torch.ones_like(ids_bt)).last_hidden_state[:, 0]
    if torch.equal(alike, unlike):
        raise ValueError(
            f"train.head=first: in {encoder.config.model_type} models the first token does not see those that follow;"
            " set train.head to mean, or native"
        )


def check_padding(model: PreTrainedModel, head: str) -> None:
    """Make sure that `model` answers a text alike with and without padding: else its neighbours have a say.

    Raises:
        ValueError: it does not, or it wants more than the tokens of a text, as translators do.

    """
    one, other = two_tokens(model.base_model)
    config = model.base_model.config
    padding = [config.pad_token_id or 0] * 3
    ids_t = torch.tensor([one, other, one, *padding], device=model.device)
    mask_t = torch.tensor([1, 1, 1, 0, 0, 0], device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            bare_bc, padded_bc = (
                model(input_ids=ids_t[None, :length], attention_mask=mask_t[None, :length]).logits for length in (3, 6)
            )
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"encoder.name: {config.model_type} models do not classify a text by its tokens alone ({error}); take an"
            " encoder such as BERT"
        ) from None
    finally:
        model.train(was_training)
    if not torch.allclose(bare_bc, padded_bc, rtol=0, atol=_LARGEST_CHANGE):
        remedy = "train.head: set it to mean, or take another encoder" if head != "mean" else "take another encoder"
        raise ValueError(
            f"encoder.name: what a {config.model_type} model answers with train.head={head} depends on the padding"
            f" after a text, and so on the texts beside it; {remedy}"
        )


def two_tokens(encoder: PreTrainedModel) -> tuple[int, int]:
    """Return two tokens whose embeddings differ, of the last ones: vocabularies may be padded with rows alike.

    Raises:
        ValueError: all embeddings are alike.

    """
    weight_vd = encoder.get_input_embeddings().get_parameter("weight").detach()
    last = len(weight_vd) - 1
    for token in range(last - 1, -1, -1):
        if not torch.equal(weight_vd[token], weight_vd[last]):
            return last, token
    raise ValueError("encoder.name: the embeddings of all its tokens are alike; take a pretrained encoder")
