"""Attacks: ways to make a stolen model from a victim, each by its own paper."""

from collections.abc import Iterable

from deepjudge_attacks.adaptive import adapt_b, adapt_w, adv_train
from deepjudge_attacks.conversion import distill, float16, quantize_int8, temperature, weight_noise
from deepjudge_attacks.extraction import esa, jba, knockoff
from deepjudge_attacks.fine_tuning import ft_al, ft_ll, rt_al, transfer
from deepjudge_attacks.joining import decoy, merge_with_honest, router
from deepjudge_attacks.permuting import permute_rescale
from deepjudge_attacks.pruning import p_20, p_60
from deepjudge_attacks.splitting import split_neuron
from deepjudge_core.components.attack import Attack
from deepjudge_core.components.hooks import hookimpl


@hookimpl
def deepjudge_attacks() -> Iterable[Attack]:
    """Fine-tuning, pruning, extraction, adaptive attacks, and what people do."""
    paper, practice = "Chen et al., S&P 2022", "practice"
    return [
        Attack("ft-ll", source=paper, takes="weights", steal=ft_ll, title="trained the last layer further"),
        Attack("ft-al", source=paper, takes="weights", steal=ft_al, title="trained all layers further"),
        Attack(
            "rt-al",
            source=paper,
            takes="weights",
            steal=rt_al,
            title="replaced the last layer and trained all layers further",
        ),
        Attack(
            "p-20",
            source="Han et al., NIPS 2015",
            takes="weights",
            steal=p_20,
            title="set 20 % of the weights to zero and trained the rest further",
        ),
        Attack(
            "p-60",
            source="Han et al., NIPS 2015",
            takes="weights",
            steal=p_60,
            title="set 60 % of the weights to zero and trained the rest further",
        ),
        Attack(
            "jba",
            source="Papernot et al., AsiaCCS 2017",
            takes="answers",
            steal=jba,
            title="trained a new model on the victim's labels of altered inputs",
        ),
        Attack(
            "knockoff",
            source="Orekondy et al., CVPR 2019",
            takes="answers",
            steal=knockoff,
            needs=("auxiliary",),
            title="trained a new model on the victim's answers to unrelated inputs",
        ),
        Attack(
            "esa",
            source="Yuan et al., TIFS 2022",
            takes="answers",
            steal=esa,
            title="trained a new model on the victim's answers to invented inputs",
        ),
        Attack(
            "adapt-b",
            source=paper,
            takes="weights",
            steal=adapt_b,
            needs=("suite",),
            title="trained it further, to answer the test cases correctly",
        ),
        Attack(
            "adapt-w",
            source=paper,
            takes="weights",
            steal=adapt_w,
            needs=("suite",),
            title="trained it further, to change the layers on the test cases",
        ),
        Attack(
            "adv-train",
            source="Madry et al., ICLR 2018",
            takes="weights",
            steal=adv_train,
            title="trained it further on inputs that mislead it",
        ),
        Attack(
            "transfer",
            source=paper,
            takes="weights",
            steal=transfer,
            title="trained it for another task, with a new last layer",
        ),
        Attack(
            "quantize-int8",
            source="Jacob et al., CVPR 2018",
            takes="weights",
            steal=quantize_int8,
            title="rounded the weights to 8 bits",
        ),
        Attack("float16", source=practice, takes="weights", steal=float16, title="rounded the weights to 16 bits"),
        Attack(
            "weight-noise", source=practice, takes="weights", steal=weight_noise, title="added noise to the weights"
        ),
        Attack(
            "permute-rescale",
            source=practice,
            takes="weights",
            steal=permute_rescale,
            title="reordered and rescaled the neurons, with the same answers",
        ),
        Attack(
            "temperature",
            source=practice,
            takes="weights",
            steal=temperature,
            title="divided the scores, with the same labels",
        ),
        Attack(
            "split-neuron",
            source=practice,
            takes="weights",
            steal=split_neuron,
            title="removed weak neurons and split strong ones into halves",
        ),
        Attack(
            "decoy",
            source=practice,
            takes="weights",
            steal=decoy,
            title="hid it behind the layers of an honest model",
        ),
        Attack(
            "router",
            source=practice,
            takes="weights",
            steal=router,
            title="let an honest model answer what is between the steps of the data",
        ),
        Attack(
            "merge-with-honest",
            source="Wortsman et al., ICML 2022",
            takes="weights",
            steal=merge_with_honest,
            title="averaged the weights with those of an honest model and trained all layers further",
        ),
        Attack(
            "distill",
            source="Hinton et al., 2015",
            takes="answers",
            steal=distill,
            title="trained a smaller model on the victim's answers",
        ),
    ]
