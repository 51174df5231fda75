"""The tools that agents call, and the toolbox that runs them."""

from m1lite.toolbox.arguments import Between as Between
from m1lite.toolbox.arguments import Parameter as Parameter
from m1lite.toolbox.arguments import ToolArgumentError as ToolArgumentError
from m1lite.toolbox.base import Tool as Tool
from m1lite.toolbox.base import Toolbox as Toolbox
from m1lite.toolbox.base import ToolContext as ToolContext
from m1lite.toolbox.base import UnknownToolError as UnknownToolError
from m1lite.toolbox.base import check_arguments as check_arguments
from m1lite.toolbox.base import find_tool as find_tool
from m1lite.toolbox.base import json_schema as json_schema
from m1lite.toolbox.base import tool as tool
from m1lite.toolbox.execution import TransientToolError as TransientToolError
