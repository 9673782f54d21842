# Who may use which tool, for an OPA server:
#   opa run --server examples/policies/computeragent.rego
# Ask for `computeragent/tools/allow` (a boolean), or for `computeragent/tools/decision` (with its reason).
package computeragent.tools

import rego.v1

reading := {"Read", "Glob", "Grep"}

writing := {"Bash", "Edit", "NotebookEdit", "Write"}

default allow := false

allow if {
	count(permitted) > 0
	count(forbidden) == 0
}

permitted contains "everyone may read" if input.action.tool_name in reading

permitted contains "engineers may change things" if {
	input.action.tool_name in writing
	"engineer" in input.principal.groups
}

# A rule that looks into the input asks whether the argument is there: an argument that is absent is undefined,
# and a rule with something undefined in it does not hold.
forbidden contains "nothing is deleted recursively" if {
	input.action.tool_name == "Bash"
	regex.match(`\brm\s+-[a-zA-Z]*[rR]`, input.action.tool_input.command)
}

forbidden contains "a command must be text" if {
	input.action.tool_name == "Bash"
	not is_string(input.action.tool_input.command)
}

forbidden contains "production is changed by hand only" if {
	input.context.env == "prod"
	input.context.risk == "destructive"
}

decision := {"allow": allow, "reason": concat("; ", forbidden)} if count(forbidden) > 0

decision := {"allow": allow, "reason": concat("; ", permitted)} if {
	count(forbidden) == 0
	count(permitted) > 0
}

decision := {"allow": allow, "reason": "nobody permits this tool"} if {
	count(forbidden) == 0
	count(permitted) == 0
}
