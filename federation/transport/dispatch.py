"""The coordinator's end of the protocol: bytes of a call in, bytes of the answer out."""

from __future__ import annotations

from federation.transport.base import Service
from federation.transport.codec import (
    DownloadRequest,
    Method,
    Offset,
    Posted,
    PostsRequest,
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
