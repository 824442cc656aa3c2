"""The coordinator's end of the protocol: bytes of a call in, bytes of the answer out."""

from __future__ import annotations

from federation.transport.base import Service
from federation.transport.codec import (
    AnswerRequest,
    AskRequest,
    DownloadRequest,
    HandedOut,
    ListenRequest,
    Method,
    Nothing,
    OfferRequest,
    Offset,
    Posted,
    PostsRequest,
    Questions,
    StatusRequest,
    decode,
    decode_upload,
    encode,
    encode_posts,
)


class Dispatcher:
    """Answers the calls of authenticated parties with a service.

    Args:
        service: the coordinator.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, party: str, method: Method, request: bytes) -> bytes:
        """Answer one call.

        Raises:
            ArchipelError: why it is refused.
        """
        service = self._service
        match method:
            case Method.POST:
                return encode(Posted(seq=await service.handle_post(party, request)))
            case Method.POSTS:
                asked = decode(PostsRequest, request)
                return encode_posts(await service.handle_posts(party, asked.after, asked.wait_seconds))
            case Method.INFO:
                return encode(await service.info(party))
            case Method.BLOB_STATUS:
                ref = decode(StatusRequest, request).ref
                return encode(Offset(offset=await service.blob_offset(party, ref)))
            case Method.UPLOAD:
                header, chunk = decode_upload(request)
                offset = await service.append_blob(party, header.ref, header.offset, chunk, header.sha256)
                return encode(Offset(offset=offset))
            case Method.DOWNLOAD:
                wanted = decode(DownloadRequest, request)
                return await service.read_blob(party, wanted.ref, wanted.offset, wanted.limit)
            case Method.OFFER:
                return await service.offer_of(party, decode(OfferRequest, request).silo)
            case Method.ASK:
                put = decode(AskRequest, request)
                return await service.ask(party, put.silo, put.question, put.wait_seconds)
            case Method.LISTEN:
                ready = decode(ListenRequest, request)
                found = await service.listen(party, ready.offer, ready.wait_seconds)
                return encode(
                    Questions(questions=tuple(HandedOut(ticket=t, asker=a, question=q) for t, a, q in found))
                )
            case Method.ANSWER:
                said = decode(AnswerRequest, request)
                await service.take_answer(party, said.ticket, said.answer)
                return encode(Nothing())
