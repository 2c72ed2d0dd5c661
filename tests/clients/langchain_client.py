"""What a program that uses LangChain's OpenAI chat model does. Argument: base URL."""
import sys

from langchain_openai import ChatOpenAI

model = ChatOpenAI(base_url=sys.argv[1], api_key="sk-nobody-0000", model="any", max_retries=0, timeout=20, stream_usage=True)
answer = model.invoke("hello")
assert answer.content == "one two three" and answer.usage_metadata["total_tokens"] == 10, answer
text = "".join(chunk.content for chunk in model.stream("hello"))
assert text == "one two three", text
print("as it should be")
