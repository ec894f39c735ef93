"""ESMM's two losses over the whole space of impressions, in log space."""

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_sums(ctr_logit: Tensor, cvr_logit: Tensor, click: Tensor, conversion: Tensor) -> Tensor:
    """[2]: sums over B impressions of BCE(click, pCTR) and BCE(click * conversion, pCTR * pCVR).

    All inputs float32 [B]. ESMM, Ma et al., SIGIR 2018, equation 3. With s = sigmoid:

        log pCTCVR       = log s(a) + log s(b)
        log (1 - pCTCVR) = log (s(-a) + s(a) s(-b))

    The second is a sum of positive terms (no click, or a click without conversion), so nothing cancels
    and nothing needs clamping, however large the logits.
    """
    log_click, log_no_click = F.logsigmoid(ctr_logit), F.logsigmoid(-ctr_logit)
    log_both = log_click + F.logsigmoid(cvr_logit)
    log_not_both = torch.logaddexp(log_no_click, log_click + F.logsigmoid(-cvr_logit))
    ctr = torch.lerp(log_no_click, log_click, click)
    ctcvr = torch.lerp(log_not_both, log_both, click * conversion)
    return -torch.stack([ctr.sum(), ctcvr.sum()])


def probabilities(ctr_logit: Tensor, cvr_logit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p_ctr, p_cvr and p_ctcvr = p_ctr * p_cvr, each [B]."""
    p_ctr, p_cvr = torch.sigmoid(ctr_logit), torch.sigmoid(cvr_logit)
    return p_ctr, p_cvr, p_ctr * p_cvr
