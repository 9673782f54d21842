"""Names of attributes, metrics and spans, and the two profiles of the GenAI semantic conventions that use them.

``1.41`` is the last release of the conventions; ``genai-next`` follows their successor, which is not released yet,
and is chosen as the conventions say: ``OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

INSTRUMENTATION_SCOPE_NAME = "@computeragent/observability"
MAX_TRACKED_SESSIONS = 10_000

GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_AGENT_NAME = "gen_ai.agent.name"
GEN_AI_AGENT_VERSION = "gen_ai.agent.version"
GEN_AI_AGENT_ID = "gen_ai.agent.id"
GEN_AI_AGENT_DESCRIPTION = "gen_ai.agent.description"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_ID = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE = "gen_ai.tool.type"
GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
GEN_AI_TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_RESULT = "gen_ai.tool.call.result"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - an attribute's name
GEN_AI_TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105 - an attribute's name
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS = "gen_ai.usage.cache_write.input_tokens"
ERROR_TYPE = "error.type"
COMPUTERAGENT_ENGINE_NAME = "computeragent.engine.name"
COMPUTERAGENT_AGENT_ID = "computeragent.agent.id"
COMPUTERAGENT_AGENT_VERSION = "computeragent.agent.version"
COMPUTERAGENT_AGENT_SHA = "computeragent.agent.sha"
COMPUTERAGENT_TURN_INDEX = "computeragent.turn.index"
COMPUTERAGENT_USAGE_COST_USD = "computeragent.usage.cost_usd"
COMPUTERAGENT_USAGE_COST_SOURCE = "computeragent.usage.cost_source"
COMPUTERAGENT_USAGE_PRICE_TABLE = "computeragent.usage.price_table"
POLICY_DECISION = "policy.decision"
POLICY_REASON = "policy.reason"
POLICY_ENGINE = "policy.engine"
POLICY_LATENCY_MS = "policy.latency_ms"
POLICY_TOOL_NAME = "policy.tool_name"
POLICY_RULE = "policy.rule"
POLICY_PRINCIPAL = "policy.principal"
POLICY_CODE = "policy.code"
POLICY_DECIDED_BY = "policy.decided_by"

INVOKE_AGENT = "invoke_agent"
CHAT = "chat"
EXECUTE_TOOL = "execute_tool"

METRIC_TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - a metric's name
METRIC_OPERATION_DURATION = "gen_ai.client.operation.duration"
METRIC_TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
METRIC_COST_USD = "computeragent.usage.cost_usd"
METRIC_INFERENCE_DURATION = "gen_ai.client.inference.duration"
METRIC_INFERENCE_TIME_TO_FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
METRIC_INFERENCE_INPUT_TOKENS = "gen_ai.client.inference.usage.input_tokens"
METRIC_INFERENCE_OUTPUT_TOKENS = "gen_ai.client.inference.usage.output_tokens"
METRIC_INFERENCE_CACHE_READ_TOKENS = "gen_ai.client.inference.usage.cache_read.input_tokens"
METRIC_INFERENCE_CACHE_WRITE_TOKENS = "gen_ai.client.inference.usage.cache_write.input_tokens"
METRIC_INVOKE_AGENT_DURATION = "gen_ai.invoke_agent.duration"
METRIC_INVOKE_AGENT_INFERENCE_CALLS = "gen_ai.invoke_agent.inference_calls"
METRIC_INVOKE_AGENT_TOOL_CALLS = "gen_ai.invoke_agent.tool_calls"
METRIC_EXECUTE_TOOL_DURATION = "gen_ai.execute_tool.duration"

TOKEN_USAGE_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
OPERATION_DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
COST_USD_BUCKETS = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 50, 100)
CALLS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class Profile:
    """What differs between the releases of the conventions.

    With `hosted`, the agent's id and version, its provider and its cache tokens are on ``invoke_agent`` spans under
    the conventions' names; the successor keeps those for agents that a provider hosts.
    """

    name: str
    schema_url: str | None
    cache_write: str
    hosted: bool
    finish_reason_in_messages: bool


PROFILE_1_41 = Profile(
    name="1.41",
    schema_url="https://opentelemetry.io/schemas/1.41.0",
    cache_write=GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS,
    hosted=True,
    finish_reason_in_messages=True,
)
PROFILE_NEXT = Profile(
    name="genai-next",
    schema_url=None,
    cache_write=GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
    hosted=False,
    finish_reason_in_messages=False,
)


def profile(environ: Mapping[str, str]) -> Profile:
    """The profile that the environment asks for."""
    chosen = {part.strip() for part in environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}
    return PROFILE_NEXT if "gen_ai_latest_experimental" in chosen else PROFILE_1_41


_PREFIXES = {
    "anthropic": "anthropic",
    "openai": "openai",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "azure": "azure.ai.openai",
    "mistral": "mistral_ai",
    "groq": "groq",
    "deepseek": "deepseek",
    "cohere": "cohere",
    "xai": "x_ai",
}
_FAMILIES = {"claude": "anthropic", "gpt": "openai", "gemini": "gcp.gemini", "mistral": "mistral_ai", "grok": "x_ai"}
_ENGINES = {"claude-agent-sdk": "anthropic", "gitagent": "anthropic"}


def provider(engine: str | None, model: str | None) -> str:
    """The provider's name as the conventions list it: what the model's name says, else the engine's own provider."""
    if model:
        prefix = model.partition(":")[0].lower() if ":" in model else ""
        if prefix in _PREFIXES:
            return _PREFIXES[prefix]
        if "anthropic.claude" in model:  # as Bedrock names it
            return "aws.bedrock"
        if model.startswith("claude") and "@" in model:  # as Vertex names it
            return "gcp.vertex_ai"
        for family, name in _FAMILIES.items():
            if model.startswith(family):
                return name
    return _ENGINES.get(engine or "claude-agent-sdk", engine or "anthropic")
