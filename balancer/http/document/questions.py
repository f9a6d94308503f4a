"""The routes that one agent answers in one piece."""

from __future__ import annotations

from balancer.http.document.operation import Answer, Example, asking
from balancer.http.document.shapes import texts
from balancer.http.llama_server.schema import ApplyTemplateBody, DetokenizeBody, TokenizeBody
from balancer.http.rerank.schema import RerankBody

OPERATIONS = (
    asking(
        path="/v1/rerank",
        tag="Rerank",
        summary="Documents by how well they answer a query",
        description="Needs a model that scores.",
        bodies=(RerankBody,),
        answers=(Answer(description="The best first.", shapes=(texts.Ranking,)),),
        examples=(
            Example(
                name="two documents",
                body={
                    "query": "what sat",
                    "documents": ["a cat sat", "a dog ran"],
                    "return_documents": True,
                },
            ),
        ),
    ),
    asking(
        path="/tokenize",
        ports=("inference", "management"),
        tag="llama-server",
        summary="The ids of a text",
        bodies=(TokenizeBody,),
        answers=(Answer(description="The ids.", shapes=(texts.Tokens,)),),
        examples=(
            Example(name="ids", body={"content": "a cat"}),
            Example(name="pieces", body={"content": "a cat", "with_pieces": True}),
        ),
    ),
    asking(
        path="/detokenize",
        tag="llama-server",
        summary="The text of ids",
        bodies=(DetokenizeBody,),
        answers=(Answer(description="The text.", shapes=(texts.Content,)),),
        examples=(Example(name="ids", body={"tokens": [97, 98]}),),
    ),
    asking(
        path="/apply-template",
        ports=("inference", "management"),
        tag="llama-server",
        summary="What a chat looks like to the model",
        bodies=(ApplyTemplateBody,),
        answers=(Answer(description="The prompt.", shapes=(texts.Prompt,)),),
        examples=(
            Example(name="a question", body={"messages": [{"role": "user", "content": "hi"}]}),
        ),
    ),
)
